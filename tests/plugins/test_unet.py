"""Every backbone of the package is a U-Net for one grey channel; encoders go by their names."""

from __future__ import annotations

import pytest
import torch
from usbench_unet.unet import encoder_name, unet

from usbench import Network
from usbench.contracts import pooled
from usbench.errors import UsbenchError
from usbench.hooks import Entry, registry
from usbench.train.networks import build_network

ENTRIES = [entry for entry in registry().entries("backbone") if entry.plugin == "unet"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="class")
def built(entry: Entry) -> Network:
    return build_network(entry, dict(entry.options), 64, seed=0).eval()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name, scope="class")
class TestEveryBackbone:
    """What any of its backbones must keep."""

    def test_one_channel_goes_in_and_one_logit_a_pixel_comes_out(self, entry: Entry, built: Network) -> None:
        images = torch.randn(2, 1, 64, 64)
        with torch.no_grad():
            logits = built(images)
            assert logits.shape == (2, 1, 64, 64) and torch.isfinite(logits).all()
            assert torch.equal(logits, built.head(built.decoder(built.encoder(images))))
        assert logits.min() < logits.max()

    def test_the_maps_have_the_strides_from_two_to_its_own(self, entry: Entry, built: Network) -> None:
        with torch.no_grad():
            maps = built.encoder(torch.randn(1, 1, 64, 64))
        strides = [64 // level.shape[-1] for level in maps]
        assert strides[-5:] == [2, 4, 8, 16, 32] and built.stride == 32
        assert all(level.shape[-1] == level.shape[-2] for level in maps)
        assert pooled(maps).shape == (1, built.dim)

    def test_another_size_of_its_stride_goes_too(self, entry: Entry, built: Network) -> None:
        with torch.no_grad():
            assert built(torch.randn(1, 1, 96, 96)).shape == (1, 1, 96, 96)

    def test_a_size_off_its_stride_is_refused_with_one_that_goes(self, entry: Entry) -> None:
        with pytest.raises(UsbenchError, match=r"cannot take 80 px: .* multiple of 32, for example --size 64"):
            build_network(entry, dict(entry.options), 80, seed=0)

    def test_the_start_hangs_on_the_seed_alone(self, entry: Entry, built: Network) -> None:
        torch.rand(3)
        again = build_network(entry, dict(entry.options), 64, seed=0).state_dict()
        assert all(torch.equal(value, again[name]) for name, value in built.state_dict().items())
        other = build_network(entry, dict(entry.options), 64, seed=1).state_dict()
        assert any(not torch.equal(value, other[name]) for name, value in built.state_dict().items())

    def test_its_timm_name_is_one_of_timms(self, entry: Entry, built: Network) -> None:
        import timm

        assert timm.is_model(built.timm_name)


def test_the_tiny_encoder_is_tiny() -> None:
    encoder = registry().get("backbone", "unet-tiny").build().encoder
    assert 0.3e6 < sum(p.numel() for p in encoder.parameters()) < 0.5e6


@pytest.mark.parametrize(
    ("name", "full"), [("resnet18", "resnet18"), ("test_resnet", "tu-test_resnet"), ("tu-resnet18", "tu-resnet18")]
)
def test_an_encoder_goes_by_its_name_in_smp_or_in_timm(name: str, full: str) -> None:
    assert encoder_name(name) == full


@pytest.mark.parametrize(
    ("name", "near"), [("resnet19", "resnet18"), ("tset_resnet", "test_resnet"), ("tu-resnet19", "resnet18")]
)
def test_a_wrong_encoder_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=f"no encoder '{name}' in smp or timm: did you mean '{near}"):
        encoder_name(name)
    with pytest.raises(UsbenchError, match=rf"backbone 'unet' refuses .*did you mean '{near}"):
        registry().get("backbone", "unet").build(encoder=name)


def test_an_encoder_like_no_other_is_refused_without_a_guess() -> None:
    with pytest.raises(ValueError, match=r"no encoder 'ö' in smp or timm$"):
        encoder_name("ö")


def test_an_encoder_without_a_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="'test_vit' gives no pyramid of maps"):
        unet("test_vit")


def test_any_hierarchical_encoder_of_timm_makes_a_unet() -> None:
    network = registry().get("backbone", "unet").build(encoder="test_convnext", width=32).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 1, 64, 64)).shape == (1, 1, 64, 64)


def test_the_decoder_halves_from_its_width_upwards_and_refuses_too_little() -> None:
    blocks = unet("test_resnet", width=64).decoder.blocks
    assert [block.conv2[0].out_channels for block in blocks] == [64, 32, 16, 16, 16]
    with pytest.raises(ValueError, match="decoder width is 15: at least 16"):
        unet("test_resnet", width=15)
