"""The operations, one class each, one file per family. Importing a family registers its ops."""
