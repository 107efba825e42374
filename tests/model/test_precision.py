"""Which number format each machine gets."""

import pytest
import torch

from helpers.common.errors import UserError
from helpers.model import machine
from helpers.model.machine import pick_dtype

T4, A100 = (7, 5), (8, 0)


@pytest.fixture
def gpu(monkeypatch):
    """Pretend that there is a GPU of some compute capability; torch says of each that it has bfloat16."""

    def pretend(capability):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_, **__: True)

    return pretend


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """Pretend that the processor has some features."""

    def pretend(features):
        (tmp_path / "cpuinfo").write_text(f"flags : fpu sse2 {features}\n")
        monkeypatch.setattr(machine, "CPU_INFO", tmp_path / "cpuinfo")

    return pretend


@pytest.mark.parametrize(("capability", "dtype"), [(T4, torch.float16), (A100, torch.bfloat16)])
def test_a_gpu_gets_bfloat16_only_where_its_hardware_has_it(gpu, capability, dtype):
    gpu(capability)
    assert pick_dtype("auto", "cuda") == dtype
    assert pick_dtype("no", "cuda") == torch.float32
    assert pick_dtype("fp16", "cuda") == torch.float16


def test_bfloat16_on_a_t4_is_refused_with_what_would_do(gpu):
    gpu(T4)
    with pytest.raises(UserError, match=r"no bfloat16: set mixed_precision to “fp16”"):
        pick_dtype("bf16", "cuda")


@pytest.mark.parametrize(
    ("features", "dtype"), [("avx2", torch.float32), ("avx512f avx512_bf16", torch.bfloat16)]
)
def test_a_cpu_gets_bfloat16_only_where_it_has_the_arithmetic(cpu, features, dtype):
    cpu(features)
    assert pick_dtype("auto", "cpu") == dtype
    with pytest.raises(UserError, match="float16 needs a GPU"):
        pick_dtype("fp16", "cpu")
