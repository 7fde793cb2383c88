"""What experiments/accelerators/count.py reads in the text of a compiled program."""

import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "experiments" / "accelerators"
PROGRAM = """HloModule jit_product

ENTRY %main (a: bf16[8,16], b: bf16[16,4]) -> (bf16[8,4], s8[64]) {{
  %a = bf16[8,16]{{1,0}} parameter(0)
  %b = bf16[16,4]{{1,0}} parameter(1)
  ROOT %c = (bf16[8,4]{{1,0}}, s8[64]{{0}}) custom-call(bf16[8,16]{{1,0}} %a, \
bf16[16,4]{{1,0}} %b), custom_call_target="{target}", \
metadata={{op_name="jit(product)/dot_general"}}, \
backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":\
{{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}}}}
}}
"""


@pytest.mark.parametrize("target", ["__cublas$gemm", "__cublas$lt$matmul"])
def test_a_product_of_any_library_call_has_its_operations(monkeypatch, target):
    monkeypatch.syspath_prepend(str(FOLDER))
    import count
    import hlo

    (kernel,) = count.kernels(hlo.Program(PROGRAM.format(target=target)), False)
    assert kernel.kind == "product"
    assert kernel.flops == 2 * 8 * 16 * 4
    assert kernel.bytes == 2 * (8 * 16 + 16 * 4 + 8 * 4) + 64
