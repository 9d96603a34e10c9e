# What the scripts share: messages, steps with a log, and the distribution's packages.
# shellcheck shell=bash
#
# A script sets `log` to the file that its steps write to, and sources this.

program=${0##*/}
: "${log:?}"

# Say in one line what is being done.
say() { printf '%s: %s\n' "$program" "$*"; }

# End with one sentence; the further arguments are printed below it, one a line.
die() {
    printf '%s: error: %s\n' "$program" "$1" >&2
    shift
    (($# == 0)) || printf '  %s\n' "$@" >&2
    exit 1
}

# step TEXT FIX COMMAND...: say what is done and do it, its output in the log;
# where it fails, end with the log's tail and with what puts it right.
step() {
    local text=$1 fix=$2
    shift 2
    say "$text"
    { printf '\n--- %s\n--- %s\n' "$text" "$*"; } >>"$log"
    "$@" >>"$log" 2>&1 </dev/null && return
    {
        printf '%s: error: %s failed; the last lines of %s:\n' "$program" "${text% ...}" "$log"
        tail -n 15 "$log" | sed 's/^/  | /'
        printf '%s: to put it right: %s\n' "$program" "$fix"
    } >&2
    exit 1
}

# How root's rights are to be had: an empty string as root, else sudo; false where there is no way.
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
    # env: sudo keeps no variable of ours, and a package must not ask anything.
    # shellcheck disable=SC2086 # empty or one word
    $prefix env DEBIAN_FRONTEND=noninteractive "$@"
}

# Those of the packages that are not installed, one a line.
missing_packages() {
    local package
    for package; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || echo "$package"
    done
}

# Refresh apt's lists once in a run: in a container they are often absent.
refresh_lists() {
    [[ -z ${lists_are_fresh-} ]] || return 0
    step "refreshing the package lists ..." "sudo apt-get update" as_root apt-get update -q
    lists_are_fresh=yes
}

# install_packages PURPOSE PACKAGE...: install those that are missing, or say what to run.
install_packages() {
    local purpose=$1 missing fix
    shift
    mapfile -t missing < <(missing_packages "$@")
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || die "$purpose needs the packages ${missing[*]}, and this is no Debian: install their counterparts"
    fix="sudo apt-get update && sudo apt-get install --no-install-recommends ${missing[*]}"
    root_prefix >/dev/null || die "$purpose needs packages that are not installed, and there are no rights to install them; ask for:" "$fix"
    refresh_lists
    step "installing ${#missing[@]} packages for $purpose ..." "$fix" \
        as_root apt-get install -q -y --no-install-recommends "${missing[@]}"
}
