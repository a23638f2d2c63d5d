#!/bin/sh
# A certificate authority for labs: lab_ca.sh DIR NAME [ADDRESS]. An operator's own PKI replaces it: the playbooks only
# want DIR/ca.crt, DIR/NAME.crt and DIR/NAME.key, with the name as CN (devices) or as subjectAltName (the broker).
# Made once, ca.key belongs off line. A name that exists gets a new certificate for the key it has: a renewal.
# A certificate is a server's (USE=serverAuth) with an address or a dot in its name, which no device id has, else a client's.
# issued/ keeps a copy of each: lab_crl.sh revokes them.
set -eu
fail() { echo "lab_ca.sh: $*" >&2; exit 2; }
[ $# -ge 2 ] && [ $# -le 3 ] || fail "give DIR NAME [ADDRESS], e.g. pki broker.example 192.0.2.5"
lab_crl=$(cd "$(dirname "$0")" && pwd)/lab_crl.sh
dir=$1 name=$2 address=${3:-}
days=${DAYS:-825}
# A name is a file here and a line of openssl's configuration: no slash, comma or line end may be in it.
case $name in
  "" | -* | .* | *[!A-Za-z0-9._-]*) fail "'$(printf %s "$name" | tr -cd '[:print:]')' is no host name: letters, digits, dots and hyphens make one" ;;
esac
[ ${#name} -le 64 ] || fail "a name has at most 64 characters, this one ${#name}: openssl takes no longer CN"
not_an_address() {
  fail "'$(printf %s "$address" | tr -cd '[:print:]')' is no IP address: give one, e.g. 192.0.2.5 or 2001:db8::5; nothing was changed"
}
case $address in *[!0-9A-Fa-f.:]*) not_an_address ;; esac
case $days in "" | *[!0-9]* | ?????*) fail "DAYS=$days: give a whole number of days under 10,000" ;; esac
case $name$address in *.* | *:*) use=${USE:-serverAuth} ;; *) use=${USE:-clientAuth} ;; esac
umask 077
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
quietly() { "$@" >"$work/said" 2>&1 || fail "$(tail -n 1 "$work/said"); nothing was changed"; }

# Everything is made beside and moved when it is whole: a refusal leaves the folder as it was.
cat >"$work/ext" <<EXT
subjectAltName=DNS:$name${address:+,IP:$address}
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=$use
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EXT
if [ -e "$dir/$name.key" ]; then cp "$dir/$name.key" "$work/key"
else quietly openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$work/key"; fi
quietly openssl req -new -key "$work/key" -subj "/CN=$name" -out "$work/csr"
if [ -n "$address" ] && ! openssl x509 -req -in "$work/csr" -signkey "$work/key" -extfile "$work/ext" \
  -out "$work/tried" >/dev/null 2>&1; then
  not_an_address
fi
if [ -e "$dir/ca.key" ]; then
  [ -e "$dir/ca.crt" ] || fail "$dir has ca.key and no ca.crt: bring it back; nothing was changed"
  cp "$dir/ca.key" "$work/ca.key"
  cp "$dir/ca.crt" "$work/ca.crt"
else # digits in its name: verifiers look for an issuer and its list by name, and there are two during a change of the CA
  quietly openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$work/ca.key" \
    -out "$work/ca.crt" -days 3650 -subj "/CN=Edge lab CA $(openssl rand -hex 4)" -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign -addext subjectKeyIdentifier=hash
fi
quietly openssl x509 -req -in "$work/csr" -CA "$work/ca.crt" -CAkey "$work/ca.key" -days "$days" \
  -set_serial "0x$(openssl rand -hex 16)" -extfile "$work/ext" -out "$work/crt"
chmod 644 "$work/ca.crt" "$work/crt"

mkdir -p "$dir/issued"
put() { cp -p "$work/$1" "$dir/$2.new" && mv "$dir/$2.new" "$dir/$2"; }
[ -e "$dir/ca.key" ] || { put ca.crt ca.crt; put ca.key ca.key; }
[ -e "$dir/$name.key" ] || put key "$name.key"
put crt "$name.crt"
cp -p "$work/crt" "$dir/issued/$name.$(openssl x509 -in "$work/crt" -noout -serial | cut -d= -f2).crt"
[ -e "$dir/crl.pem" ] || (cd "$dir" && DAYS= "$lab_crl" .)
