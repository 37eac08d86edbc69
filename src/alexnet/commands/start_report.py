"""Copies of one picture, found when a run begins and kept in one split."""

from typing import Any

from alexnet.data.copies import find_copies
from alexnet.data.dataset import Dataset
from alexnet.terminal import escaped, say
from alexnet.training.parallel import Team

MANY = 8  # classes that a line names


def keep_copies_together(dataset: Dataset, team: Team) -> None:
    """The first process of a team looks for copies and says what it found; all cut alike."""

    folder = dataset.source.kind == "folder"
    listed = "; `alexnet data check` lists them" if folder else ""

    def look() -> dict[str, Any]:
        found = find_copies(dataset.source, dataset.recipe.workers)
        if found.why_not:
            say(f"photos that are copies of others were not looked for: {found.why_not}{listed}")
        if found.uniform:
            names = ", ".join(found.uniform[:MANY])
            say(
                f"most images of {escaped(names)} are so alike that copies cannot be told: there "
                "only files of the same bytes are kept together"
            )
        for part, count in found.across:
            say(
                f"warning: {count:,} images of {part} look like copies of training images, so its "
                f"figures flatter{listed}"
            )
        return {"groups": found.groups}

    groups = team.first(look)["groups"]
    dataset.keep_together(groups)
    if groups and team.leads and dataset.groups:
        photos = sum(map(len, groups))
        several = "1 group" if len(groups) == 1 else f"{len(groups):,} groups"
        say(
            f"{photos:,} photos are copies of others (the same file, saved anew, resized or "
            f"mirrored): {several} kept in one split each{listed}"
        )
        for split, names in dataset.without_images().items():
            say(
                f"warning: {split} has no image of {escaped(', '.join(names[:MANY]))}: what there "
                "is are copies of too few pictures"
            )
