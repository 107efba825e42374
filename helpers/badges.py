"""Links in the README that open a notebook on a cloud, once the repository has a public address."""

import re
from pathlib import Path

from . import places

_PLACE = re.compile(r"(?<=<!-- badges -->\n).*?(?=<!-- /badges -->)", re.DOTALL)
_CLOUDS = {
    "Colab": "https://colab.research.google.com/github/{repository}/blob/main/{path}",
    "Kaggle": "https://kaggle.com/kernels/welcome?src={address}/blob/main/{path}",
    "Paperspace Gradient": "https://console.paperspace.com/github/{repository}/blob/main/{path}",
}


def badges(address: str | None) -> str:
    """A line of links to the all-in-one notebook; nothing where there is no address.

    Args:
        address: of a repository on GitHub, for example `https://github.com/owner/name`.
    """
    if address is None:
        return ""
    address = address.rstrip("/").removesuffix(".git")
    repository = "/".join(address.split("/")[-2:])
    path = "notebooks/all_in_one.ipynb"
    links = (
        f"[Open in {cloud}]({link.format(address=address, repository=repository, path=path)})"
        for cloud, link in _CLOUDS.items()
    )
    return " · ".join(links) + "\n"


def with_badges(readme: str) -> str:
    """The README's text with the links for the present address between its two marks."""
    return _PLACE.sub(lambda _: badges(places.REPOSITORY_ADDRESS), readme)


def write_badges() -> Path:
    """Bring the README in step with the address."""
    path = places.repository_folder() / "README.md"
    path.write_text(with_badges(path.read_text(encoding="utf-8")), encoding="utf-8")
    return path


if __name__ == "__main__":
    write_badges()
