"""The methods of a Graph, for type checkers: api.py attaches them."""

from . import api

class Attached:
    save = api.save
    show = api.show
    annotate = api.annotate
    summary = api.summary
    find = api.find
    diff = api.diff
