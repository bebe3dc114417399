#!/bin/bash
# Installs the engine of this checkout into an environment of its own in the runner's temporary
# folder, and says where the cache is.
# Never by name: an index may know something else under it.
set -euo pipefail

extras=${ENGINE_EXTRAS:-}
if [[ ! $extras =~ ^([a-z-]+(,[a-z-]+)*)?$ ]]; then
  echo "::error::extras: expected names with commas between them, such as embedded,docker"
  exit 2
fi

cache=${ENGINE_CACHE:-}
[[ -n $cache ]] || cache=$RUNNER_TEMP/cleanroom-cache
if [[ $cache == *$'\n'* || $cache == *$'\r'* ]]; then
  echo "::error::cache: expected the path of a folder on one line"
  exit 2
fi
mkdir -p -- "$cache"
chmod go-w -- "$cache"
printf 'cache=%s\n' "$(cd -- "$cache" && pwd -P)" >>"$GITHUB_OUTPUT"

# Ubuntu's AppArmor keeps ordinary users from making namespaces.
# A machine of one's own is left as it is: its administrator decides.
switch=/proc/sys/kernel/apparmor_restrict_unprivileged_userns
if [[ ${ENGINE_USER_NAMESPACES:-} == true && ${RUNNER_ENVIRONMENT:-} == github-hosted ]] &&
  [[ -r $switch && $(<"$switch") == 1 ]]; then
  sudo -n sysctl -q -w kernel.apparmor_restrict_unprivileged_userns=0 ||
    echo "::warning::user namespaces stay closed: cleanroom-engine doctor says what can be held"
fi

here=$(cd -- "$GITHUB_ACTION_PATH/.." && pwd -P)
place=$RUNNER_TEMP/cleanroom-engine
if [[ ! -x $place/bin/cleanroom-engine ]]; then
  # Isolated: else `-m` runs a module of this name in the current folder, which is the checkout.
  "${ENGINE_PYTHON:-python3}" -I -m venv -- "$place"
  "$place/bin/python" -I -m pip install --quiet --disable-pip-version-check \
    "$here${extras:+[$extras]}"
fi
"$place/bin/cleanroom-engine" --version
