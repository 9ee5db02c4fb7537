"""The Vision Transformer: equal to PyTorch's, true to its names; it learns, resumes, and reads."""

from __future__ import annotations

import itertools
import json
import math
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import needs_torch
from shape_names import watch

import minitensor as mt
from minitensor import Tensor
from minitensor.models import digits, training, vit
from minitensor.models.command import InputError
from minitensor.models.digits import distort, load_digits, read_image, warp
from minitensor.models.training import Trainer, resume_run, start_run
from minitensor.models.vit import (
    Vision,
    VisionConfig,
    VisionSettings,
    VisionTransformer,
    rollout,
)
from minitensor.serialize import CheckpointError, load_file, save_file
from minitensor.testing import assert_close

GREY = VisionConfig(embed_dim=16, dim_feedforward=24, dropout=0.0)
COLOUR = VisionConfig(
    image_size=12, patch_size=4, channels=3, num_classes=5, embed_dim=12, num_heads=3, depth=3,
    dim_feedforward=20, dropout=0.0,
)  # fmt: skip


def make(config: VisionConfig) -> tuple[VisionTransformer, Tensor]:
    """A model and four images for it."""
    mt.manual_seed(0)
    images = mt.rand(4, config.channels, config.image_size, config.image_size)
    return VisionTransformer(config), images


# The model


@needs_torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("config", [GREY, COLOUR], ids=["grey", "colour"])
def test_scores_and_gradients_equal_torchs(config: VisionConfig) -> None:
    import torch

    model, images = make(config)
    logits = model(images)
    layer = torch.nn.TransformerEncoderLayer(
        config.embed_dim, config.num_heads, config.dim_feedforward, 0.0, "gelu",
        batch_first=True, norm_first=True,
    )  # fmt: skip
    encoder = torch.nn.TransformerEncoder(
        layer, config.depth, torch.nn.LayerNorm(config.embed_dim), enable_nested_tensor=False
    )
    state = {name: torch.tensor(value.tolist()) for name, value in model.state_dict().items()}
    own = {k: v for k, v in state.items() if k.startswith(("layers.", "norm."))}
    encoder.load_state_dict(own)  # strict: the names are PyTorch's, all of them
    rest = {k: v.requires_grad_() for k, v in state.items() if k not in own}
    cut = torch.nn.functional.unfold(  # channels, then the pixels of a patch, as here
        2 * torch.tensor(images.tolist()) - 1, config.patch_size, stride=config.patch_size
    ).transpose(1, 2)
    linear = torch.nn.functional.linear
    x = linear(cut, rest["patch_embedding.weight"], rest["patch_embedding.bias"])
    x = torch.cat([rest["class_token"].expand(4, 1, -1), x], 1) + rest["positions"]
    expected = linear(encoder(x)[:, 0], rest["output.weight"], rest["output.bias"])
    np.testing.assert_allclose(logits.tolist(), expected.tolist(), rtol=1e-5, atol=1e-5)

    weight = mt.randn(*logits.shape)
    (logits * weight).sum().backward()
    (expected * torch.tensor(weight.tolist())).sum().backward()
    theirs = {**rest, **dict(encoder.named_parameters())}
    names = dict(model.named_parameters())
    assert set(names) == set(theirs)
    for name, parameter in names.items():
        assert parameter.grad is not None
        np.testing.assert_allclose(
            parameter.grad.tolist(), theirs[name].grad.tolist(), rtol=1e-4, atol=1e-4, err_msg=name
        )


def test_names_of_tensors_say_their_shapes() -> None:
    model, images = make(COLOUR)
    with watch(vit) as seen:
        model.train()(images)
        rollout(model.eval().attention_maps(images))
        vit.probabilities(model, images)
    shapes = {name: shape for (_, name), shape in seen.items()}
    assert shapes["pixel_NCGPGP"] == {(4, 3, 3, 4, 3, 4)}
    assert shapes["patch_NSD"] == {(4, 9, 48)}
    assert shapes["q_NHLK"] == {(4, 3, 10, 4)}
    assert shapes["logits_NV"] == {(4, 5)}


def test_patches_are_cut_row_by_row_from_the_top_left() -> None:
    model, images = make(COLOUR)
    patches = model.patches(images)
    for row, column in itertools.product(range(3), range(3)):
        block = images[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert mt.equal(patches[:, 3 * row + column], block.flatten(1))


def test_the_attention_maps_are_those_that_the_model_computes_with() -> None:
    model, images = make(GREY)
    model.eval()
    x = model.embed(images)
    layer: Any
    for layer, weights in zip(model.layers, model.attention_maps(images), strict=True):
        attention, normed = layer.self_attn, layer.norm1(x)
        *_, v = attention.project(normed)
        joined = (weights @ v).transpose(1, 2).flatten(2)
        assert_close(attention.out_proj(joined), attention(normed), rtol=1e-5, atol=1e-5)
        x = layer(x)


def test_rollout_shares_out_each_position_and_the_residual_keeps_half() -> None:
    uniform, none = mt.full((1, 2, 4, 4), 0.25), mt.eye(4).expand(1, 2, 4, 4)
    first, second, third = rollout([none, uniform, uniform])
    assert mt.equal(first[0], mt.eye(4))  # each looked at itself
    assert_close(second[0], 0.5 * mt.eye(4) + 0.125)
    assert_close(third[0], 0.25 * mt.eye(4) + 0.1875)
    for share in rollout([mt.randn(2, 3, 5, 5).softmax(-1) for _ in range(3)]):
        assert_close(share.sum(-1), mt.ones(2, 5))


def test_dropout_is_everywhere_in_training_and_nowhere_else() -> None:
    model, images = make(replace(GREY, dropout=0.5))
    assert not mt.equal(model(images), model(images))
    model.eval()
    assert mt.equal(model(images), model(images))
    assert len([m for m in model.modules() if getattr(m, "dropout", None)]) == 1 + 2 * GREY.depth


@pytest.mark.parametrize("config", [GREY, COLOUR, VisionConfig()])
def test_a_config_knows_the_number_of_parameters(config: VisionConfig) -> None:
    model = VisionTransformer(config)
    assert config.parameters == sum(p.numel() for p in model.parameters())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"patch_size": 3}, "image_size=8, patch_size=3"),
    ({"num_heads": 5}, "embed_dim=64, num_heads=5"),
    ({"depth": 0}, "depth must be an integer of at least 1"),
    ({"channels": True}, "channels must be an integer"),
    ({"embed_dim": 64.0}, "embed_dim must be an integer"),
    ({"num_classes": 2**31}, "num_classes must be an integer of at least 1 and below"),
    ({"dropout": 1.5}, "dropout must be a number from 0 to 1"),
    ({"dropout": math.nan}, "dropout must be a number from 0 to 1"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_a_config_that_no_model_can_have_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VisionConfig(**values)


def test_images_of_another_size_are_refused() -> None:
    model, _ = make(GREY)
    for shape in (4, 1, 8, 9), (4, 3, 8, 8), (1, 8, 8):
        with pytest.raises(RuntimeError, match=r"this model reads \(N, 1, 8, 8\)"):
            model(mt.rand(*shape))


def test_its_graph_has_names_for_all_sizes() -> None:
    model, inputs, dims = vit.example()
    graph = mt.graph.trace(model, inputs["images"], dims=dims)
    labels = {graph.values[node.outputs[0]].label for node in graph.nodes.values()}
    assert {"(N, 4, E)", "(N, 5, 3*E)", "(N, H, 5, E/H)", "(N, 5, F)", "(N, V)"} <= labels


# Distorted images


def test_a_distortion_by_nothing_changes_nothing() -> None:
    images = np.random.RandomState(0).rand(3, 2, 8, 8).astype(np.float32)
    found = warp(images, np.tile(np.eye(2), (3, 1, 1)), np.zeros((3, 2)))
    np.testing.assert_allclose(found, images, atol=1e-6)


def test_shifts_are_of_rows_and_columns_with_zeros_at_the_edge() -> None:
    images = np.random.RandomState(0).rand(2, 1, 8, 8).astype(np.float32)
    shifts = np.array([[1.0, 0.0], [0.0, -0.5]])
    found = warp(images, np.tile(np.eye(2), (2, 1, 1)), shifts)
    np.testing.assert_allclose(found[0, 0, :7], images[0, 0, 1:], atol=1e-5)
    np.testing.assert_allclose(found[0, 0, 7], 0, atol=1e-3)
    between = (images[1, 0, :, :-1] + images[1, 0, :, 1:]) / 2
    np.testing.assert_allclose(found[1, 0, :, 1:], between, atol=1e-5)
    np.testing.assert_allclose(found[1, 0, :, 0], images[1, 0, :, 0] / 2, atol=1e-5)


def test_a_quarter_turn_turns_each_image_about_its_centre() -> None:
    images = np.random.RandomState(0).rand(2, 3, 8, 8).astype(np.float32)
    turn = np.array([[[0.0, 1.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    found = warp(images, turn, np.zeros((2, 2)))
    np.testing.assert_allclose(found[0], np.rot90(images[0], 1, (1, 2)), atol=1e-3)
    np.testing.assert_allclose(found[1], images[1], atol=1e-6)


def test_each_image_is_distorted_in_another_way_by_the_seed() -> None:
    image = mt.rand(1, 1, 8, 8).expand(3, 1, 8, 8)
    found = []
    for seed in 0, 0, 1:
        mt.manual_seed(seed)
        found.append(distort(image))
    assert mt.equal(found[0], found[1])
    assert not mt.equal(found[0], found[2])
    assert not mt.equal(found[0][0], found[0][1])
    assert found[0].shape == (3, 1, 8, 8)
    assert found[0].min() >= 0
    assert found[0].max() <= 1


# Image files


def write(path: Path, values: np.ndarray) -> Path:
    np.save(path, values)
    return path


def test_numbers_are_read_by_their_range(tmp_path: Path) -> None:
    pixels = np.random.RandomState(0).randint(0, 17, (8, 8))
    pixels[0, 0] = 16
    expected = mt.tensor((pixels / 16).astype(np.float32))[None]
    for name, values in (
        ("share", pixels / 16),
        ("sixteen", pixels),
        ("channel", pixels[None].astype(np.float32)),
    ):
        assert_close(read_image(write(tmp_path / f"{name}.npy", values), 8, 1), expected)
    dark = np.full((8, 8), 2, np.uint8)  # bytes go to 255, however dark they are
    found = read_image(write(tmp_path / "dark.npy", dark), 8, 1)
    assert_close(found, mt.full((1, 8, 8), 2 / 255))


def test_pictures_are_read_and_colours_made_grey(tmp_path: Path) -> None:
    image = pytest.importorskip("matplotlib.image")
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 4)).astype(np.uint8)
    pixels[..., 3] = 255
    image.imsave(tmp_path / "a.png", pixels)
    colours = pixels[..., :3].astype(np.float32) / 255
    found = read_image(tmp_path / "a.png", 8, 1)
    assert_close(found, mt.tensor(colours.mean(-1))[None], atol=1e-6, rtol=1e-5)
    found = read_image(tmp_path / "a.png", 8, 3)
    assert_close(found, mt.tensor(np.moveaxis(colours, 2, 0)), atol=1e-6, rtol=1e-5)
    grey = pixels[..., 0]
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 255\n" + grey.tobytes())
    expected = mt.tensor(grey.astype(np.float32) / 255)[None]
    assert_close(read_image(tmp_path / "a.pgm", 8, 1), expected)


BAD: dict[str, tuple[Any, str]] = {
    "large.npy": (np.zeros((28, 28)), "is an image of 28 x 28, this model reads 8 x 8 pixels"),
    "batch.npy": (np.zeros((2, 1, 8, 8)), "is an image of 2 x 1 x 8 x 8, this model reads"),
    "flat.npy": (np.zeros(64), "is an image of 64, this model reads 8 x 8"),
    "number.npy": (np.zeros(()), "has no pixels, but float64 of shape ()"),
    "nan.npy": (np.full((8, 8), math.nan), "has values from nan to nan, expected 0 to 1"),
    "negative.npy": (np.full((8, 8), -1), "has values from -1 to -1, expected 0 to 1"),
    "words.npy": (np.full((8, 8), "ink"), "has no pixels, but <U3"),
    "empty.npy": (np.zeros((0, 8)), "has no pixels"),
    "objects.npy": (np.array([{}], object), "is not a picture that can be read"),
    "text.npy": (b"no picture", "is not a picture that can be read"),
    "text.png": (b"no picture", "is not a picture that can be read"),
    "nothing.png": (b"", "is not a picture that can be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_an_image_that_cannot_be_used_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / name
    if name.endswith("png"):
        pytest.importorskip("matplotlib")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(InputError) as raised:
        read_image(path, 8, 1)
    text = str(raised.value)
    assert text.startswith(f"{path} ")
    assert message in text
    assert "\n" not in text


# The digits, and runs that learn them


SMALL = VisionSettings(
    epochs=2, views=4, batch_size=101, embed_dim=32, depth=1, dim_feedforward=32, lr=6e-3, warmup=8
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run that was trained."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("runs") / "run"
    with watch(vit, digits), start_run(Vision, SMALL, folder) as trainer:
        assert trainer.run(lambda line: None) == 0
    return folder


def test_a_quarter_of_each_class_is_held_out() -> None:
    pytest.importorskip("sklearn")
    found = load_digits()
    parts = found.train, found.valid, found.test
    assert sorted(np.concatenate(parts)) == list(range(1797))
    assert [len(part) for part in parts] == [1212, 135, 450]
    for part in parts:
        counts = np.bincount(found.labels[part], minlength=10) / np.bincount(found.labels)
        np.testing.assert_allclose(counts, len(part) / 1797, atol=0.01)
    assert found.images.min() == 0
    assert found.images.max() == 1


def test_the_batches_of_an_epoch_show_each_image_as_often_as_asked(run: Path) -> None:
    task = Vision(SMALL)
    numbers = [np.concatenate(task.train_batches(epoch)) for epoch in (0, 0, 1)]
    for order in numbers:
        assert sorted(order) == sorted([*task.digits.train] * 4)
    assert (numbers[0] == numbers[1]).all()
    assert (numbers[0] != numbers[2]).any()


def test_the_model_learns(run: Path) -> None:
    records = [json.loads(line) for line in (run / training.LOG).read_text().splitlines()]
    first, last = (record for record in records if record["kind"] == "epoch")
    assert last["valid_loss"] < first["valid_loss"] < math.log(10)
    assert last["valid_accuracy"] > 0.5
    assert last["images_per_second"] > 0


def test_an_interrupted_run_ends_as_one_left_alone(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def stopped(self: Trainer, batch: Any) -> tuple[float, float]:
        self.interrupt.signal = 15 if self.position.step == 29 else 0
        return step(self, batch)

    with monkeypatch.context() as patched, start_run(Vision, SMALL, tmp_path) as trainer:
        patched.setattr(Trainer, "step", stopped)
        assert trainer.run(lambda line: None) == 15
    with resume_run(Vision, tmp_path, {}) as trainer:
        assert trainer.position.step == 30
        assert trainer.run(lambda line: None) == 0
    whole, resumed = (load_file(folder / training.LAST)[0] for folder in (run, tmp_path))
    assert whole.keys() == resumed.keys()
    for name, tensor in whole.items():
        assert mt.equal(tensor, resumed[name]), name


# The command line


def test_commands_measure_and_read(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    found = load_digits()
    number = int(found.test[0])
    assert vit.main(["evaluate", "--run", str(run)]) == 0
    first, *wrong = capsys.readouterr().out.splitlines()
    right = int(first.split()[0])
    assert first.startswith(f"{right} of 450 digits that were held out are read right: ")
    assert right > 225
    assert len(wrong) == 450 - right

    picture = tmp_path / "looks.png"
    options = ["--run", str(run), "--attention", str(picture)]
    assert vit.main(["classify", str(number), *options]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"number {number}, a {found.labels[number]} (held out), is taken for a ")
    assert picture.read_bytes().startswith(b"\x89PNG")

    np.save(tmp_path / "own.npy", found.images[number, 0])
    np.save(tmp_path / "dark.npy", 1 - found.images[number, 0])
    said = []
    for more in ["own.npy"], ["dark.npy", "--invert"], ["dark.npy"]:
        path = str(tmp_path / more[0])
        assert vit.main(["classify", path, *more[1:], "--run", str(run)]) == 0
        said.append(capsys.readouterr().out.removeprefix(path))
    assert said[0] == said[1] != said[2]
    assert said[0].strip() in text


def test_bad_input_is_one_sentence_and_exit_code_1(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "large.npy", np.zeros((28, 28)))
    for arguments, message in (
        (["classify", "1797", "--run", str(run)], "there is no digit number 1797"),
        (["classify", "9" * 5000, "--run", str(run)], "there is no digit number 9"),
        (["classify", str(tmp_path / "large.npy"), "--run", str(run)], "28 x 28"),
        (["classify", str(tmp_path / "none.npy"), "--run", str(run)], "No such file"),
        (["classify", "5", "--run", str(tmp_path / "none")], "no trained model"),
        (["evaluate", "--run", str(tmp_path / "none")], "no trained model"),
        (["train", "--out", str(run)], "already holds a run"),
        (["train", "--out", str(tmp_path / "r"), "--num-heads", "5"], "num_heads=5"),
        (["train", "--out", str(tmp_path / "r"), "--patch-size", "3"], "patch_size=3"),
        (["train", "--out", str(run), "--resume", "--depth", "3"], "--depth is 3, but the run"),
    ):
        assert vit.main(arguments) == 1, arguments
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1


def test_without_scikit_learn_a_sentence_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    load_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert vit.main(["train", "--out", str(tmp_path / "run")]) == 1
    error = capsys.readouterr().err
    assert "scikit-learn is not installed: install it with" in error
    assert "pip install scikit-learn" in error
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused(run: Path, tmp_path: Path) -> None:
    tensors, header = load_file(run / training.BEST)
    config, settings = json.loads(header["config"]), json.loads(header["settings"])
    huge = {"depth": 2**30, "embed_dim": 2**20, "num_heads": 4}
    longer = {**config, "depht": 1}
    for changes, message in (
        ({"config": json.dumps({**config, **huge})}, "does not hold the weights of this model"),
        ({"config": json.dumps({**config, "num_heads": 2})}, "num_heads is 2, by the settings 4"),
        ({"config": json.dumps({**config, "num_heads": 5})}, "embed_dim=32, num_heads=5"),
        ({"config": json.dumps(longer)}, "unknown setting 'depht'"),
        ({"config": "[]"}, "it is"),
        ({"settings": json.dumps({**settings, "num_heads": 5})}, "num_heads=5"),
        ({"task": '"translation"'}, "another task"),
    ):
        path = tmp_path / "changed.safetensors"
        save_file(tensors, path, {**header, **changes})
        with pytest.raises(CheckpointError, match=r"changed\.safetensors") as raised:
            vit.load_model(path)
        assert message in str(raised.value)
    renamed = {f"{name}x": tensor for name, tensor in tensors.items()}
    save_file(renamed, tmp_path / "changed.safetensors", header)
    with pytest.raises(CheckpointError, match="does not hold the weights of this model"):
        vit.load_model(tmp_path / "changed.safetensors")


def test_a_command_alone_learns_and_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(vit, "VisionSettings", lambda: replace(SMALL, epochs=1, views=1))
    for _ in range(2):  # the second replaces the first
        assert vit.main([]) == 0
        text = capsys.readouterr().out
        assert "of 450 digits that were held out are read right" in text
        assert f"classify {load_digits().test[0]} --run {vit.DEMO_RUN}" in text
    assert (tmp_path / vit.DEMO_RUN / training.BEST).exists()


def test_a_sketch_shows_ink_where_there_is_ink() -> None:
    images = mt.zeros(2, 1, 2, 2)
    images[0, 0, 0, 1], images[1, 0, 1, 0] = 1.0, 0.5
    assert vit.sketch(images, ["a", "b"]).splitlines() == ["  @@", "       ==", " a      b"]


def test_settings_and_config_have_the_same_defaults() -> None:
    assert VisionSettings().config() == VisionConfig()
    assert set(asdict(VisionSettings())) > {"patch_size", "embed_dim", "depth", "epochs", "seed"}


def test_a_run_compiles_its_loss_unless_it_is_told_not_to() -> None:
    compiled, plain = (Trainer(Vision(replace(SMALL, no_compile=no)), "") for no in (False, True))
    assert plain.loss == plain.task.loss
    assert compiled.loss != compiled.task.loss
