"""A network starts from what was named, whole, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from usbench import Network
from usbench.errors import Refused, UsbenchError
from usbench.hooks import registry
from usbench.train import checkpoint
from usbench.train.networks import build_network, load_encoder, start_from


def network(seed: int = 0, backbone: str = "unet-tiny") -> Network:
    entry = registry().get("backbone", backbone)
    return build_network(entry, dict(entry.options), 64, seed)


def weights(built: Network) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in built.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor], prefix: str = "") -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items() if name.startswith(prefix))


def timms(channels: int = 3) -> Any:
    torch.manual_seed(5)
    model = timm.create_model("test_resnet", pretrained=False, in_chans=channels).eval()
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.weight, 0.5, 2), torch.nn.init.uniform_(norm.running_var, 0.01, 0.1)
    return model


def test_a_random_start_is_the_network_as_it_was_built() -> None:
    built = network()
    before = weights(built)
    assert start_from(built, "random") is None
    assert same(before, weights(built))


class OneSize(torch.nn.Module):
    """An encoder that takes images of 64 px and no others, as some transformers do."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor) -> Any:
        assert image.shape[-1] == 64, f"Input height ({image.shape[-1]}) doesn't match model (64)."
        return self.inner(image)


def test_an_encoder_of_one_size_is_taken_at_that_size_and_refused_at_others() -> None:
    def factory() -> Network:
        made = registry().get("backbone", "unet-tiny").build()
        made.encoder = OneSize(made.encoder)
        return made

    entry = replace(registry().get("backbone", "unet-tiny"), factory=factory, options={}, fixed={})
    assert build_network(entry, {}, 64, 0).encoder.inner is not None
    with pytest.raises(Refused, match=r"'unet-tiny' cannot take images of 128 px \(Input height \(128\).*--size"):
        build_network(entry, {}, 128, 0)


def test_an_encoder_saved_by_a_pretraining_loads_whole_and_alone(tmp_path: Path) -> None:
    source, target = network(seed=1), network(seed=2)
    before, file = weights(target), tmp_path / "weights.safetensors"
    checkpoint.write(file, {f"encoder.{name}": value for name, value in source.encoder.state_dict().items()})
    report = start_from(target, str(file))
    assert report is not None and report.loaded == len(source.encoder.state_dict())
    assert report.adapted == report.unexpected == ()
    after = weights(target)
    assert same(weights(source), after, "encoder.")
    assert not same(before, after, "encoder.")
    assert same(before, after, "decoder.") and same(before, after, "head.")


def test_a_whole_network_of_the_same_kind_gives_its_encoder(tmp_path: Path) -> None:
    source, target = network(seed=1), network(seed=2)
    before, file = weights(target), tmp_path / "network.safetensors"
    checkpoint.write(file, source.state_dict())
    report = start_from(target, str(file))
    assert report is not None and report.unexpected == ()
    assert same(weights(source), weights(target), "encoder.")
    assert same(before, weights(target), "decoder.") and same(before, weights(target), "head.")


def test_timms_own_weights_load_into_the_tu_encoder_and_give_the_same_features() -> None:
    model, built = timms(channels=1), network()
    load_encoder(built, model.state_dict(), "timm")
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(built.eval().encoder(images)[-1], model.forward_features(images))


def test_three_input_channels_are_summed_so_that_grey_looks_as_grey_in_three() -> None:
    model, built = timms(), network()
    report = load_encoder(built, model.state_dict(), "timm")
    (stem,) = report.adapted
    assert built.encoder.state_dict()[f"model.{stem}"].shape[1] == 1
    assert report.unexpected == ()
    assert str(report) == f"{report.loaded} tensors loaded, 1 adapted, 0 not used"
    images = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        expected = model.forward_features(images.repeat(1, 3, 1, 1))
    found = built.eval().encoder(images)[-1]
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-3 * float(expected.std()), rtol=0)


def test_smps_own_encoder_takes_timms_weights_of_the_same_architecture() -> None:
    built = network(backbone="unet-resnet18")
    torch.manual_seed(5)
    given = timm.create_model("resnet18", pretrained=False).state_dict()
    report = load_encoder(built, given, "timm")
    assert report.unexpected == () and report.adapted == ("conv1.weight",)
    assert torch.equal(built.encoder.state_dict()["layer4.1.conv2.weight"], given["layer4.1.conv2.weight"])


def test_missing_tensors_are_refused_with_how_many_and_one_of_them() -> None:
    built = network()
    given = dict(network(seed=1).encoder.state_dict())
    gone = [name for name in given if "layer3" in name and "num_batches" not in name]
    for name in gone:
        del given[name]
    before = weights(built)
    with pytest.raises(UsbenchError, match=rf"file\.x .*: {len(gone)} of its \d+ tensors are missing, .*'layer3"):
        load_encoder(built, given, "file.x")
    assert same(before, weights(built))


def test_another_architecture_is_refused() -> None:
    with pytest.raises(UsbenchError, match="tensors are missing"):
        load_encoder(network(), network(backbone="unet-resnet18").encoder.state_dict(), "resnet18")


def test_a_wrong_shape_is_refused_with_both_shapes() -> None:
    built = network()
    given = dict(network(seed=1).encoder.state_dict())
    name = next(name for name, value in given.items() if "layer2" in name and value.ndim == 4)
    given[name] = given[name][:, :5]
    shape = tuple(built.encoder.state_dict()[name].shape)
    with pytest.raises(UsbenchError) as error:
        load_encoder(built, given, "file.x")
    assert f"is {(shape[0], 5, *shape[2:])}, not {shape}" in str(error.value) and "file.x" in str(error.value)


def test_what_the_encoder_has_no_place_for_is_reported() -> None:
    given = dict(network(seed=1).encoder.state_dict()) | {"extra.weight": torch.zeros(3), "fc.weight": torch.zeros(3)}
    assert load_encoder(network(), given, "file").unexpected == ("extra.weight",)


def test_a_file_that_is_not_there_or_not_whole_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsbenchError, match=r"there is no file .*nothing\.safetensors"):
        start_from(network(), str(tmp_path / "nothing.safetensors"))
    torn = tmp_path / "torn.safetensors"
    save_file({"a": torch.zeros(100)}, torn)
    torn.write_bytes(torn.read_bytes()[:-50])
    with pytest.raises(UsbenchError, match="is not a whole safetensors file"):
        start_from(network(), str(torn))


class TestImageNet:
    """`--init imagenet` reads the cache and never asks the network."""

    asked: list[tuple[str, str]]

    @pytest.fixture
    def cache(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        import huggingface_hub

        self.asked, found = [], {}

        def look(repository: str, file: str, **_: Any) -> str | None:
            self.asked.append((repository, file))
            return found.get(repository)

        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look)
        return found

    def test_weights_in_the_cache_are_loaded(self, cache: dict[str, str], tmp_path: Path) -> None:
        model, built = timms(), network()
        file = tmp_path / "model.safetensors"
        checkpoint.write(file, model.state_dict())
        cache["timm/test_resnet.r160_in1k"] = str(file)
        report = start_from(built, "imagenet")
        assert report is not None and len(report.adapted) == 1
        assert self.asked == [("timm/test_resnet.r160_in1k", "model.safetensors")]
        loaded = built.encoder.state_dict()["model.layer4.0.conv2.weight"]
        assert torch.equal(loaded, model.state_dict()["layer4.0.conv2.weight"])

    def test_weights_not_in_the_cache_end_in_a_sentence_with_the_command(self, cache: dict[str, str]) -> None:
        with pytest.raises(UsbenchError, match=r"hf download timm/test_resnet\.r160_in1k model\.safetensors"):
            start_from(network(), "imagenet")

    def test_an_encoder_without_published_weights_is_refused(self, cache: dict[str, str]) -> None:
        built = network()
        built.timm_name = "mine"
        with pytest.raises(UsbenchError, match="no ImageNet weights are published for the encoder 'mine'"):
            start_from(built, "imagenet")
        assert self.asked == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_with_file_and_tensor(tmp_path: Path, value: float) -> None:
    given = {name: tensor.clone() for name, tensor in network(seed=1).encoder.state_dict().items()}
    name = next(name for name, tensor in given.items() if "layer2" in name and tensor.ndim == 4)
    given[name][0, 0, 0, 0] = value
    file = tmp_path / "broken.safetensors"
    save_file(given, file)
    shown = name.removeprefix("model.")
    with pytest.raises(UsbenchError, match=rf"broken\.safetensors holds weights that are not finite, in '{shown}'"):
        start_from(network(), str(file))
