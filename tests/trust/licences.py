"""`make licences`: each installed package, its version and the licence that it declares."""

from importlib.metadata import Distribution, distributions


def licence(package: Distribution) -> str:
    """What a package says of its licence: an SPDX expression, else its classifiers, else the first line."""
    about = package.metadata
    named = [line.split(" :: ")[-1] for line in about.get_all("Classifier", []) if line.startswith("License")]
    declared = about.get("License-Expression") or ", ".join(named) or about.get("License") or "not declared"
    return declared.splitlines()[0]


def main() -> None:
    for package in sorted(distributions(), key=lambda one: one.metadata["Name"].lower()):
        print(f"{package.metadata['Name']:<32}{package.version:<16}{licence(package)}")


if __name__ == "__main__":
    main()
