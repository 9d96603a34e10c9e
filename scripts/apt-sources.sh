# Use this machine's Debian mirror and keyring for another Debian suite.
# shellcheck shell=bash
#
# apt has two formats of sources, one-line and deb822 (sources.list(5)). Both are
# supported, and written in their own format with the other suite.

# Write sources for another suite's source packages into a directory; false if
# this machine has no sources of Debian's archive.
private_sources() { # SUITE DIRECTORY
    local LIST='' PARTS='' codename file
    eval "$(apt-config shell LIST Dir::Etc::sourcelist/f PARTS Dir::Etc::sourceparts/d)"
    # shellcheck source=/dev/null
    codename=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    mkdir -p "$2"
    for file in "$LIST" "$PARTS"*.list; do
        [[ ! -r $file ]] || one_line_sources "$codename" "$1" <"$file"
    done >"$2/criu.list"
    for file in "$PARTS"*.sources; do
        [[ ! -r $file ]] || deb822_sources "$codename" "$1" <"$file"
    done >"$2/criu.sources"
    [[ -s $2/criu.list || -s $2/criu.sources ]]
}

# Matches Debian's own archive, a mirror, or a snapshot of it, but no other archive.
readonly is_debian='^(mirror|.*/debian(/[0-9]+T[0-9]+Z)?/?$)'

one_line_sources() { # CODENAME SUITE
    awk -v codename="$1" -v suite="$2" -v debian="$is_debian" '
        $1 == "deb" {
            sub(/#.*/, "")
            options = ""
            if (match($0, /\[[^]]*\]/)) {
                options = substr($0, RSTART, RLENGTH) " "
                $0 = substr($0, 1, RSTART - 1) substr($0, RSTART + RLENGTH)
                gsub(/(arch|target|lang)[-+]?=[^] ]*/, "", options)
            }
            if ($2 ~ debian && $3 == codename && $0 ~ / main( |$)/) print "deb-src " options $2 " " suite " main"
        }'
}

deb822_sources() { # CODENAME SUITE
    awk -v codename="$1" -v suite="$2" -v debian="$is_debian" '
        function finish() {
            if (types ~ / deb / && suites ~ " " codename " " && components ~ / main / && mirror ~ debian && !disabled)
                printf "Types: deb-src\nSuites: %s\nComponents: main\n%s\n", suite, rest
            types = suites = components = mirror = rest = field = ""
            disabled = 0
        }
        /^#/ { next }
        /^[ \t]*$/ { finish(); next }
        /^[^ \t]/ { field = tolower($1); value = $0; sub(/^[^:]*:/, "", value) }
        /^[ \t]/ { value = $0 }
        {
            gsub(/[ \t]+/, " ", value)
            if (field == "types:") types = types " " value " "
            else if (field == "suites:") suites = suites " " value " "
            else if (field == "components:") components = components " " value " "
            else if (field == "enabled:") disabled = tolower(value) ~ /no|false|off|0/
            else {
                if (field == "uris:") { mirror = value; gsub(/ /, "", mirror) }
                if (field ~ /^(uris|signed-by|trusted|allow|check|inrelease)/) rest = rest $0 "\n"
            }
        }
        END { finish() }'
}

# Print the mirror in sources written by private_sources, then their keyring, if any.
mirror_and_keyring() { # DIRECTORY
    awk '
        $1 == "deb-src" {
            if (match($0, /signed-by=[^] ]*/)) keyring = substr($0, RSTART + 10, RLENGTH - 10)
            sub(/\[[^]]*\] */, "")
            mirror = $2
        }
        tolower($1) == "uris:" { mirror = $2 }
        tolower($1) == "signed-by:" && $2 ~ /^\// { keyring = $2 }
        mirror != "" && !printed++ { first = mirror }
        END { print first; print keyring }' "$1/criu.list" "$1/criu.sources"
}
