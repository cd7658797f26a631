"""Writes the modules through which programs in other languages use the public library."""

from __future__ import annotations

import re
from pathlib import Path

from cafe_lib.errors import BuildError
from cafe_lib.interface.model import Interface
from cafe_lib.interface.records import Records
from cafe_lib.toolchain.bind_python import python_binding
from cafe_lib.toolchain.bind_rust import rust_binding


def write_bindings(interface: Interface, records: Records, name: str, output: Path) -> tuple[Path, ...]:
    """Write rust/NAME.rs and python/NAME.py in ``output``; what no identifier may hold becomes `_`.

    :raises BuildError: they cannot be written.
    """
    module = re.sub(r"\W", "_", name)
    texts = {
        output / "rust" / f"{module}.rs": rust_binding(interface, records, name),
        output / "python" / f"{module}.py": python_binding(interface, records, name),
    }
    try:
        for path, text in texts.items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    except OSError as error:
        raise BuildError(f"{output}: {error.strerror}") from error
    return tuple(texts)
