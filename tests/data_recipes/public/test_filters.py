"""What stays out of a built set, and why."""

from __future__ import annotations

import pytest
from PIL import Image

from data_recipes.public.base import PublishedTurn, SourceRow
from data_recipes.public.filters import (
    Aspect,
    ExactDuplicates,
    Opened,
    OpenedPicture,
    ScoreFilter,
    ShortSide,
    SimilarPictures,
    difference_hash,
    parse_filters,
)
from tests.data_recipes.public.miniatures import encoded, noise


def opened(*images: Image.Image, quality_format: str = "PNG", **fields) -> Opened:
    pictures = tuple(
        OpenedPicture(str(number), encoded(image, quality_format), image, quality_format)
        for number, image in enumerate(images)
    )
    return Opened(SourceRow(id="row", **fields), pictures)


def keep(one, *candidates: Opened) -> list[bool]:
    """Which candidates stay, when every kept one is remembered."""
    kept = []
    for candidate in candidates:
        kept.append(one.keeps(candidate))
        if kept[-1]:
            one.remember(one.key(candidate))
    return kept


def test_the_short_side_of_every_picture_counts() -> None:
    assert ShortSide(32).keeps(opened(noise(1, 32, 90)))
    assert not ShortSide(32).keeps(opened(noise(1, 31, 90)))
    assert not ShortSide(32).keeps(opened(noise(1, 64, 64), noise(2, 90, 31)))


def test_the_aspect_counts_both_ways_up() -> None:
    assert Aspect(2).keeps(opened(noise(1, 40, 20))) and Aspect(2).keeps(opened(noise(1, 20, 40)))
    assert not Aspect(2).keeps(opened(noise(1, 41, 20))) and not Aspect(2).keeps(opened(noise(1, 20, 41)))


def test_a_score_of_the_table_comes_before_a_scorer_and_one_of_them_is_needed() -> None:
    asked: list[Image.Image] = []

    def scorer(image: Image.Image) -> float:
        asked.append(image)
        return 7.0

    rated, unrated = opened(noise(1), scores={"aesthetic": 5.0}), opened(noise(1))
    assert ScoreFilter("aesthetic", 5.0).keeps(rated) and not ScoreFilter("aesthetic", 5.1).keeps(rated)
    assert not ScoreFilter("aesthetic", 6.0, scorer=scorer).keeps(rated) and asked == []
    assert ScoreFilter("aesthetic", 6.0, scorer=scorer).keeps(unrated) and len(asked) == 1
    with pytest.raises(ValueError, match="no aesthetic score.*--scorer"):
        ScoreFilter("aesthetic", 6.0).keeps(unrated)


def test_a_watermark_score_is_a_ceiling() -> None:
    (ceiling,) = parse_filters(["watermark=0.5"])
    assert ceiling.keeps(opened(noise(1), scores={"watermark": 0.5}))
    assert not ceiling.keeps(opened(noise(1), scores={"watermark": 0.6}))


def test_the_same_file_is_drawn_once() -> None:
    assert keep(ExactDuplicates(), opened(noise(1)), opened(noise(2)), opened(noise(1))) == [True, True, False]


def test_two_questions_about_one_picture_are_no_duplicates_but_the_same_question_twice_is() -> None:
    def question(words: str) -> Opened:
        return opened(noise(1), turns=(PublishedTurn("user", "<image>" + words), PublishedTurn("assistant", "yes")))

    assert keep(ExactDuplicates(), question("red?"), question("blue?"), question("red?")) == [True, True, False]


def test_an_edit_is_known_by_its_target() -> None:
    turns = (PublishedTurn("user", "<image>redraw it"), PublishedTurn("assistant", "<image_gen>"))
    pairs = [opened(noise(before), noise(after), turns=turns) for before, after in ((1, 2), (1, 3), (4, 2))]
    assert keep(ExactDuplicates(), *pairs) == [True, True, False]
    assert keep(SimilarPictures(3), *pairs) == [True, True, False]


def test_a_scaled_and_compressed_copy_is_similar_and_another_picture_is_not() -> None:
    copies = [opened(noise(1, 96, 80).resize((60, 50)), quality_format="JPEG"), opened(noise(1, 48, 40))]
    others = [opened(noise(seed)) for seed in range(2, 30)]
    assert keep(SimilarPictures(4), opened(noise(1, 96, 80)), *copies) == [True, False, False]
    assert keep(ExactDuplicates(), opened(noise(1, 96, 80)), *copies) == [True, True, True]
    assert all(keep(SimilarPictures(4), opened(noise(1)), *others))


@pytest.mark.parametrize("distance", [0, 1, 3, 10, 15])
def test_hashes_are_found_up_to_the_distance_and_not_beyond(distance: int) -> None:
    import random

    rng = random.Random(distance)
    for _ in range(60):
        value = rng.getrandbits(64)
        one = SimilarPictures(distance)
        one.remember(f"{value:016x}")
        for flips in (distance, distance + 1):
            other = value
            for bit in rng.sample(range(64), flips):
                other ^= 1 << bit
            assert one.knows(other) == (flips <= distance)


def test_a_difference_hash_has_64_bits_and_tells_a_picture_from_its_mirror() -> None:
    image = noise(3)
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    assert 0 <= difference_hash(image) < 1 << 64
    assert (difference_hash(image) ^ difference_hash(mirrored)).bit_count() > 10


def test_filters_that_remember_come_last_whatever_the_order_on_the_command_line() -> None:
    names = [one.name for one in parse_filters(["duplicates", "short_side=512", "similar=3", "aspect=2"])]
    assert names == ["short_side", "aspect", "duplicates", "similar"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("sharpness=3", "unknown filter 'sharpness'; there are short_side"),
        ("short_side", "name=number"),
        ("aspect=wide", "name=number"),
        ("similar=16", "similar=0 to similar=15"),
        ("similar=2.5", "similar=0 to similar=15"),
    ],
)
def test_a_wrong_filter_says_what_is_right(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_filters([spec])


def test_a_scorer_that_nothing_asks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a filter that asks it"):
        parse_filters(["short_side=10"], scorer=lambda image: 1.0)
    assert len(parse_filters(["score=0.5"], scorer=lambda image: 1.0)) == 1
