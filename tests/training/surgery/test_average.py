"""Between two models lies their average; models of different shape have none."""

from __future__ import annotations

import pytest
import torch

from training.surgery.average import main, move_towards
from vargpt.loading.models import save
from vargpt.published.families import load
from vargpt.testing import tiny_model, tiny_processor


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_every_weight_lies_at_its_share_of_the_way(share: float) -> None:
    before, after = tiny_model(seed=0), tiny_model(seed=1)
    first, last = ({k: v.clone() for k, v in model.state_dict().items()} for model in (before, after))
    averaged = move_towards(before, after, share).state_dict()
    moved = 0
    for name, weight in averaged.items():
        torch.testing.assert_close(weight, first[name] + share * (last[name] - first[name]), atol=1e-6, rtol=1e-5)
        moved += not torch.equal(weight, first[name])
    assert (moved > 0) is (share > 0)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        move_towards(tiny_model(), tiny_model(), 1.5)
    other = tiny_model()
    other.language_model.norm.weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="different shape.*language_model.norm.weight"):
        move_towards(tiny_model(), other, 0.5)


def test_the_command_writes_a_model_that_loads(tmp_path, capsys) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        save(tiny_model(seed=seed), tiny_processor(), tmp_path / name, torch.float32)
    main([str(tmp_path / "a"), str(tmp_path / "b"), "--share", "1", "--out", str(tmp_path / "c")])
    (third, _), (second, _) = (load(tmp_path / name, device="cpu", dtype="float32") for name in "cb")
    worst = max(
        (one.float() - other.float()).abs().max()
        for one, other in zip(third.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert worst < 0.05, "saved in bfloat16"
    with pytest.raises(SystemExit):
        main([str(tmp_path / "a"), str(tmp_path / "missing"), "--out", str(tmp_path / "d")])
    assert "missing" in capsys.readouterr().err
