"""Each layout is taken by a tool of its build system: PlatformIO, ESP-IDF's component manager, Kconfig, Arduino's builder.

The Python tools are looked for on the path and in build/package-tools, where .ci/install_tools puts them.
"""

import re
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from xml.etree import ElementTree

import pytest
from embedded_tools import package_tool, require_build, require_tool

from qcc.backends.c.build import library_sources

Digits = Callable[..., Any]
ARDUINO = Path("/usr/share/arduino")


def run(command: Sequence[object], folder: Path, **environment: str) -> str:
    """What a tool prints; its settings and caches stay in ``folder``."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_platformio_packs_the_library(digits: Digits, tmp_path: Path) -> None:
    pio = package_tool("pio")
    folder = digits("cortex-m4", layout="platformio").folder
    settings = {"PLATFORMIO_CORE_DIR": str(tmp_path), "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no"}
    run([pio, "pkg", "pack", "-o", tmp_path / "digits.tar.gz", folder], tmp_path, **settings)
    with tarfile.open(tmp_path / "digits.tar.gz") as archive:
        packed = set(archive.getnames())
    assert {"library.json", "digits.h", *(p.name for p in library_sources(folder))} <= packed


def test_esp_idf_component_manager_takes_the_manifest(digits: Digits, tmp_path: Path) -> None:
    compote = package_tool("compote")
    folder = digits("c", layout="esp-idf").folder
    settings = {"IDF_TOOLS_PATH": str(tmp_path), "IDF_COMPONENT_CACHE_PATH": str(tmp_path)}
    assert (
        run([compote, "manifest", "lint", folder / "idf_component.yml"], tmp_path, **settings).strip() == ""
    )
    options = ["--project-dir", folder, "--name", "digits", "--dest-dir", tmp_path / "dist"]
    run([compote, "component", "pack", *options], tmp_path, **settings)
    assert (tmp_path / "dist" / "digits_1.0.0.tgz").is_file()


@pytest.mark.parametrize(("chosen", "line"), [("y", "CONFIG_DIGITS=y"), ("n", "# CONFIG_DIGITS is not set")])
def test_kconfig_of_the_zephyr_module(chosen: str, line: str, digits: Digits, tmp_path: Path) -> None:
    """Zephyr sources a module's Kconfig within a menu and adds a symbol of its own; kconfiglib is what it parses with."""
    olddefconfig = package_tool("olddefconfig")
    file = digits("cortex-m4", layout="zephyr").folder / "zephyr" / "Kconfig"
    menu = f'menu "digits"\nosource "{file}"\nconfig ZEPHYR_DIGITS_MODULE\n\tbool\n\tdefault y\nendmenu\n'
    (tmp_path / "Kconfig").write_text(f'mainmenu "app"\n{menu}', encoding="utf-8")
    (tmp_path / ".config").write_text(f"CONFIG_DIGITS={chosen}\n", encoding="utf-8")
    printed = run([olddefconfig, "Kconfig"], tmp_path, KCONFIG_WARN_UNDEF="y")
    assert "warning" not in printed
    assert line in (tmp_path / ".config").read_text(encoding="utf-8").splitlines()


@pytest.mark.compiler
def test_arduino_builder_compiles_and_links_a_sketch(digits: Digits, tmp_path: Path) -> None:
    """For a processor with an int of 16 bits, without a warning in a file of the library."""
    for tool in ("arduino-builder", "avr-gcc"):
        require_tool(tool)
    if not (ARDUINO / "hardware" / "arduino" / "avr" / "platform.txt").is_file():
        pytest.skip("arduino-core-avr, whose compiler is avr-gcc, is not installed")
    require_build("c")
    folder = digits("c", layout="arduino").folder
    buffers = "static int8_t arena[DIGITS_ARENA_BYTES], in[DIGITS_INPUT_BYTES], out[DIGITS_OUTPUT_BYTES];\n"
    sketch = (
        f"#include <digits.h>\n{buffers}void setup() {{}}\nvoid loop() {{ digits_run(arena, in, out); }}\n"
    )
    (tmp_path / "sketch").mkdir()
    (tmp_path / "sketch" / "sketch.ino").write_text(sketch, encoding="utf-8")
    (tmp_path / "build").mkdir()
    settings = {
        "compiler.cpp.extra_flags": "-DDECIMAL_DIG=17",  # missing in Debian's avr-libc
        "compiler.c.elf.extra_flags": "-Wl,--defsym=__DATA_REGION_LENGTH__=0xf000",  # constants stay in RAM here
        "upload.maximum_data_size": "61440",
    }
    folders = {"hardware": ARDUINO / "hardware", "tools": "/usr/bin", "libraries": folder.parent}
    command: list[object] = ["arduino-builder", "-compile", "-hardware", "/usr/share/arduino-builder"]
    command += [word for key, value in folders.items() for word in (f"-{key}", value)]
    command += [
        "-fqbn",
        "arduino:avr:mega:cpu=atmega2560",
        "-warnings",
        "all",
        "-build-path",
        tmp_path / "build",
    ]
    command += [word for key, value in settings.items() for word in ("-prefs", f"{key}={value}")]
    printed = run([*command, tmp_path / "sketch" / "sketch.ino"], tmp_path)
    assert not re.search(rf"^{re.escape(str(folder))}.*warning", printed, re.MULTILINE), printed
    assert (tmp_path / "build" / "sketch.ino.elf").is_file()


def test_arduino_properties_follow_the_specification(digits: Digits) -> None:
    """The rules of the library specification, revision 1.5, as arduino-lint checks them."""
    folder = digits("cortex-m4", layout="arduino").folder
    lines = (folder / "library.properties").read_text(encoding="utf-8").splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    wanted = {
        "name",
        "version",
        "author",
        "maintainer",
        "sentence",
        "paragraph",
        "category",
        "url",
        "architectures",
    }
    assert wanted <= properties.keys()
    assert all(properties[key] for key in wanted)
    assert re.fullmatch(r"[a-zA-Z][\w .-]{0,62}", properties["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", properties["version"])
    assert properties["category"] == "Data Processing"
    assert urlparse(properties["url"]).scheme


@pytest.mark.parametrize("name", ["digits", "a_name_of_more_than_thirty_two_letters"])
def test_cmsis_pack_follows_its_schema(name: str, digits: Digits) -> None:
    """The rules of PACK.xsd 1.7 for the elements that the file has."""
    folder = digits("cortex-m4", layout="cmsis-pack", name=name).folder
    package = ElementTree.parse(folder / f"qcc.{name}.pdsc").getroot()
    assert {child.tag for child in package} == {
        "vendor",
        "name",
        "description",
        "url",
        "releases",
        "components",
    }
    for tag in ("vendor", "name"):
        assert re.fullmatch(r"[-_A-Za-z0-9]+", package.findtext(tag, ""))
    release, component = package.find("releases/release"), package.find("components/component")
    assert release is not None
    assert component is not None
    assert release.attrib == {"version": "1.0.0"}
    assert component.attrib.keys() == {"Cclass", "Cgroup", "Csub", "Cversion"}
    for key in ("Cclass", "Cgroup", "Csub"):
        assert re.fullmatch(r"[A-Za-z0-9][\w+()/\- .]{1,31}", component.attrib[key])
    assert [child.tag for child in component] == ["description", "files"]
    files = component.findall("files/file")
    assert {f.attrib["category"] for f in files} == {"include", "header", "sourceC"}
    assert all(f.attrib["name"].endswith("/") for f in files if f.attrib["category"] == "include")
