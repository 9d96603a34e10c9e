# Shared by the scripts: messages, steps with a log, and the distribution's packages.
# shellcheck shell=bash
#
# A script sets `log` to the file for the output of its steps, then sources this.

program=${0##*/}
: "${log:?}"

# Print what is being done, on one line.
say() { printf '%s: %s\n' "$program" "$*"; }

# Exit with one sentence; print further arguments below it, one a line.
die() {
    printf '%s: error: %s\n' "$program" "$1" >&2
    shift
    (($# == 0)) || printf '  %s\n' "$@" >&2
    exit 1
}

# step TEXT FIX COMMAND...: print TEXT and run COMMAND, with its output in the log;
# if it fails, exit with the log's tail and the fix.
step() {
    local text=$1 fix=$2
    shift 2
    say "$text"
    { printf '\n--- %s\n--- %s\n' "$text" "$*"; } >>"$log"
    "$@" >>"$log" 2>&1 </dev/null && return
    {
        printf '%s: error: %s failed; the last lines of %s:\n' "$program" "${text% ...}" "$log"
        tail -n 15 "$log" | sed 's/^/  | /'
        printf '%s: to fix it: %s\n' "$program" "$fix"
    } >&2
    exit 1
}

# How to become root: an empty string as root, else sudo; false if neither works.
root_prefix() {
    if ((EUID == 0)); then
        return
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [[ -t 0 && -t 2 ]]; }; then
        echo sudo
    else
        return 1
    fi
}

as_root() {
    local prefix
    prefix=$(root_prefix) || return
    # env: sudo does not keep variables, and packages must not ask questions.
    # shellcheck disable=SC2086 # empty or one word
    $prefix env DEBIAN_FRONTEND=noninteractive "$@"
}

# Print the packages that are not installed, one a line.
missing_packages() {
    local package
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# Refresh apt's lists once per run: in a container they are often missing.
refresh_lists() {
    [[ -z ${lists_are_fresh-} ]] || return 0
    step "refreshing the package lists ..." "sudo apt-get update" as_root apt-get update -q
    lists_are_fresh=yes
}

# install_packages PURPOSE PACKAGE...: install missing packages, or say what to run.
install_packages() {
    local purpose=$1 missing fix
    shift
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "$purpose needs the packages ${missing[*]}, but this is not Debian: install their counterparts"
    fix="sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
    root_prefix >/dev/null || die "$purpose needs packages that are not installed, and you may not install them; ask for:" "$fix"
    refresh_lists
    step "installing ${#missing[@]} packages for $purpose ..." "$fix" \
        as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
}

python_packages=(python3 python3-venv python3-dev gcc libc6-dev pkg-config)

# Print what the interpreter lacks; nothing if it is fine.
lacks() {
    "$python" - <<'PYTHON'
import importlib.util
import os
import sys
import sysconfig

if sys.version_info < (3, 10):
    print(f"it is {sys.version.split()[0]}, but 3.10 or newer is required")
elif not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
    print("its headers (Python.h) are missing")
elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    print("its modules venv and ensurepip are missing")
PYTHON
}

# Make sure that the interpreter, $python, can build the package; install packages if it is the distribution's.
need_python() {
    local path what
    path=$(command -v "$python" || true)
    if [[ -n $path ]] && what=$(lacks 2>/dev/null) && [[ -z $what ]]; then
        command -v "${CC:-cc}" >/dev/null || install_packages "building the extension" gcc libc6-dev
        return
    fi
    case $path in
        '' | /usr/bin/* | /bin/*) [[ $python == python3 || $python == /usr/bin/python3 ]] && install_packages "Python" "${python_packages[@]}" ;;
    esac
    command -v "$python" >/dev/null || die "there is no $python: set PYTHON=/path/to/python3 to an interpreter of version 3.10 or newer"
    what=$(lacks 2>/dev/null) || what="it does not run"
    [[ -z $what ]] || die "$(command -v "$python") cannot be used: $what; set PYTHON=/path/to/python3 to another interpreter"
}
