"""What is run in the container of an etcd, as shell scripts, and what they answer.

Written for any POSIX shell, with no program but etcdctl and those that come with every one (ls, rm,
df, sleep, cat). Nothing of ours stays in the pod:

- The file is nameless before its first byte is sent: it is opened, removed and read through its
  descriptor. Whatever ends the stream, the system takes the file back.
- Whoever waits for something waits in a way that a signal ends.
- While etcdctl writes it, it has a name. A container runtime does not end a command whose caller
  has gone, so the script listens to its standard input, which ends with us, and ends itself.
- After a `kill -9` in just that time the name stays. The next run removes it: each name tells the
  shell that made it, and a shell that is no more has left what it left.

No background job of the script outlives it: what did would become a child of etcd, which buries no
children.
"""

import re
import shlex
from dataclasses import dataclass

#: First words of the scripts, which a running one is known by in its command line.
MARK = ": backstay"
#: What names in the data directory's parent begin with.
PREFIX = "backstay-"
#: etcdctl's own patience is 5 s.
_HASH_TIMEOUT = "120s"
#: Exit code of our own: no CA is where one should be.
NO_CA = 90


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPaths:
    """Where things are in the container `etcd`.

    Attributes:
        etcdctl: the program.
        endpoint: of the pod's own member; its certificate knows `localhost`, and no address.
        authorities: files with the CA, the first that is there is taken: that of 4.12 and later,
            and that of before.
        certificate: of the client.
        key: of the client.
        volume: the directory that the snapshot is written to: the volume of etcd, beside its data
            directory and never in it.
    """

    etcdctl: str = "/usr/bin/etcdctl"
    endpoint: str = "https://localhost:2379"
    authorities: tuple[str, ...] = (
        "/etc/etcd/tls/etcd-ca/ca.crt",
        "/etc/etcd/tls/client/etcd-client-ca.crt",
    )
    certificate: str = "/etc/etcd/tls/client/etcd-client.crt"
    key: str = "/etc/etcd/tls/client/etcd-client.key"
    volume: str = "/var/lib"


def look(paths: PodPaths) -> str:
    """Make the script that looks at one member; prints `NAME VALUE` lines, see `parse_look`."""
    return f"""{MARK}
{_begin(paths)}
set -- $(df -Pk "$dir" | tail -n 1)
echo "free $4"
for f in "$dir"/{PREFIX}*; do [ -e "$f" ] && echo "left ${{f##*/}}"; done
s=$(ctl endpoint status -w json) || exit
echo "status $s"
echo "alarms $(ctl alarm list 2>/dev/null | tr '\\n' ' ')"
"""


def hashkv(paths: PodPaths, revision: int) -> str:
    """Make the script that has the member sum its keys.

    It prints a line when it begins, and then what `etcdctl endpoint hashkv -w json` prints.

    Args:
        paths: where things are.
        revision: up to which; 0 = its newest.
    """
    return f"""{MARK}
{_begin(paths)}
echo begins
ctl --command-timeout {_HASH_TIMEOUT} endpoint hashkv --rev {revision} -w json
"""


def save(paths: PodPaths, run: str) -> str:
    """Make the script that writes a snapshot and streams it.

    It prints one line with the member's status, one with the file's size, and then the file. While
    etcdctl writes, a line end goes to standard error whenever the file has grown.

    Args:
        paths: where things are.
        run: letters and digits that no other run has.
    """
    return f"""{MARK}
{_begin(paths)}
ours() {{
  l=
  [ -r "/proc/$1/cmdline" ] && IFS= read -r l <"/proc/$1/cmdline"
  case $l in *{shlex.quote(MARK)}*) return 0;; esac
  return 1
}}
for o in "$dir"/{PREFIX}*.db*; do
  p=${{o##*/{PREFIX}}}; p=${{p%%-*}}
  case $p in *[!0-9]*|'') continue;; esac
  ours $p || rm -f "$o"
done
f=$dir/{PREFIX}$$-{run}.db
c= w=
end() {{
  trap '' HUP INT TERM PIPE
  [ -n "$c" ] && kill $c 2>/dev/null && wait $c 2>/dev/null
  [ -n "$w" ] && kill $w 2>/dev/null && wait $w 2>/dev/null
  rm -f "$f" "$f.part"
}}
trap end EXIT
trap 'exit 129' HUP; trap 'exit 130' INT; trap 'exit 143' TERM; trap 'exit 141' PIPE
exec 4<&0
(
  while IFS= read -r l; do :; done
  ours $$ && kill -TERM $$
) <&4 >/dev/null 2>&1 &
w=$!
s=$(ctl endpoint status -w json) || exit
ctl snapshot save "$f" >/dev/null </dev/null &
c=$!
n= i=0
while kill -0 $c 2>/dev/null; do
  i=$((i+1)); t=1; [ $i -lt 10 ] && t=0.1
  sleep $t 2>/dev/null || sleep 1
  set -- $(ls -ln "$f.part" 2>/dev/null)
  [ "$5" = "$n" ] || echo >&2
  n=$5
done
wait $c; r=$?; c=
[ $r -eq 0 ] || exit $r
exec 3<"$f" || exit
set -- $(ls -ln "$f")
rm -f "$f"
echo "$s"
echo "$5"
cat <&3 &
c=$!
wait $c; r=$?; c=
exit $r
"""


def _begin(paths: PodPaths) -> str:
    authorities = " ".join(map(shlex.quote, paths.authorities))
    return f"""dir={shlex.quote(paths.volume)}
for n in ENDPOINTS CACERT CERT KEY USER PASSWORD INSECURE_SKIP_TLS_VERIFY; do unset ETCDCTL_$n; done
ca=
for a in {authorities}; do [ -r "$a" ] && {{ ca=$a; break; }}; done
[ -n "$ca" ] || {{ echo "no CA at {authorities}" >&2; exit {NO_CA}; }}
ctl() {{
  ETCDCTL_API=3 {shlex.quote(paths.etcdctl)} --endpoints {shlex.quote(paths.endpoint)} \\
    --cacert "$ca" --cert {shlex.quote(paths.certificate)} --key {shlex.quote(paths.key)} "$@"
}}"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What one pod answered.

    Attributes:
        free: bytes that are free where the snapshot would be written; None where nobody knows.
        left: names that earlier runs left.
        alarms: (member id, kind) of those that stand.
        status: etcdctl's status of the member, JSON; empty where it gave none.
    """

    free: int | None
    left: tuple[str, ...]
    alarms: tuple[tuple[int, str], ...]
    status: str


_ALARM = re.compile(r"memberID:([0-9]{1,20}) +alarm:([A-Z]{1,20})")


def alarms_in(text: str) -> tuple[tuple[int, str], ...]:
    """Find (member id, kind) of each alarm, as etcdctl and a member's own status write them."""
    return tuple((int(member), kind) for member, kind in _ALARM.findall(text))


def parse_look(output: bytes) -> Looked:
    """Read what `look` printed; whatever that is, this raises nothing."""
    free: int | None = None
    left: list[str] = []
    alarms: tuple[tuple[int, str], ...] = ()
    status = ""
    for line in output.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        if name == "free" and value.isascii() and value.isdigit() and len(value) < 16:
            free = int(value) * 1024
        elif name == "left":
            left.append(value)
        elif name == "alarms":
            alarms = alarms_in(value)
        elif name == "status":
            status = value
    return Looked(free=free, left=tuple(left), alarms=alarms, status=status)
