#!/usr/bin/env bash
# Run uv (the installer): the one on PATH, or else one that this script installs into the user's cache directory. It gets
# pip's package index, proxy and certificates, because uv does not read pip's settings.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
boot=${XDG_CACHE_HOME:-$HOME/.cache}/f2llm-ray/uv
unset VIRTUAL_ENV CONDA_PREFIX PYTHONHOME PYTHONPATH

explain_venv() { # python
  echo "$1 cannot make a virtual environment: on Debian that needs a separate package. Install it and try again: apt-get install python3-venv" >&2
}

bootstrap() {
  local python
  python=$("$here/python.sh")
  echo "Installing uv, the installer (once, into $boot)" >&2
  rm -rf "$boot"
  mkdir -p "$(dirname "$boot")"
  if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if "$python" -m pip --version >/dev/null 2>&1; then
      "$python" -m pip install --quiet --disable-pip-version-check --target "$boot" uv >&2
      return
    fi
    # A fresh Debian has Python without pip and venv. As root (in a container), install them and print a message.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && [ "$python" = "$(realpath /usr/bin/python3)" ]; then
      echo "Installing Debian's python3-venv (Python came without it)" >&2
      export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
      { apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv; } >/dev/null ||
        { explain_venv "$python" && exit 1; }
    else
      explain_venv "$python"
      exit 1
    fi
  fi
  "$python" -m venv "$boot"
  "$boot/bin/python" -m pip install --quiet --disable-pip-version-check uv >&2
}

if uv --version >/dev/null 2>&1; then
  uv=$(command -v uv)
  pip_python=python3
else
  [ -x "$boot/bin/uv" ] && "$boot/bin/uv" --version >/dev/null 2>&1 || bootstrap
  uv=$boot/bin/uv
  pip_python=$boot/bin/python
  [ -x "$pip_python" ] || pip_python=python3
fi

# pip's settings, if uv has no own value. Nothing is printed, because the URL of an index may contain a password.
pip_settings=$("$pip_python" -m pip config list 2>/dev/null || true)
setting() { # name -> value; the environment has precedence, as in pip
  local variable
  variable=PIP_$(tr 'a-z-' 'A-Z_' <<<"$1")
  if [ -n "${!variable:-}" ]; then
    printf '%s' "${!variable}"
  else
    sed -n "s/^\(global\|install\)\.$1='\(.*\)'\$/\2/p" <<<"$pip_settings" | sed -n '$p' | sed 's/\\n/ /g; s/^ *//'
  fi
}
words() { tr -s ' \n' "$1" <<<"$2" | sed "s/[$1]*\$//"; } # separator, list -> the list with uv's separator
pass_on() { [ -n "${!1:-}" ] || [ -z "$2" ] || export "$1=$2"; } # uv's variable, value

[ -n "${UV_INDEX_URL:-}" ] || pass_on UV_DEFAULT_INDEX "$(setting index-url)"
if [ -z "${UV_INDEX:-}${UV_EXTRA_INDEX_URL:-}" ] && [ -n "$(setting extra-index-url)" ]; then
  export UV_INDEX UV_INDEX_STRATEGY
  UV_INDEX=$(words ' ' "$(setting extra-index-url)")
  UV_INDEX_STRATEGY=${UV_INDEX_STRATEGY:-unsafe-best-match} # pip's own rule: the best version of any index
fi
[ -n "${UV_FIND_LINKS:-}" ] || pass_on UV_FIND_LINKS "$(words , "$(setting find-links)")"
pass_on UV_INSECURE_HOST "$(words ' ' "$(setting trusted-host)")"
pass_on SSL_CERT_FILE "$(setting cert)"
pass_on HTTPS_PROXY "$(setting proxy)"
pass_on UV_HTTP_TIMEOUT "$(setting default-timeout)"
[ -z "${PIP_NO_INDEX:-}" ] || pass_on UV_NO_INDEX 1
exec "$uv" "$@"
