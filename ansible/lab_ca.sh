#!/bin/sh
# A certificate authority for labs: lab_ca.sh DIR NAME [ADDRESS]. An operator's own PKI replaces it: the playbooks only
# want DIR/ca.crt, DIR/NAME.crt and DIR/NAME.key, with the name as CN (devices) or as subjectAltName (the broker).
# Made once, ca.key belongs off line. A name that exists gets a new certificate for the key it has: a renewal.
# A certificate is a server's (USE=serverAuth) with an address or a dot in its name, which no device id has, else a client's.
# issued/ keeps a copy of each: lab_crl.sh revokes them.
set -eu
lab_crl=$(cd "$(dirname "$0")" && pwd)/lab_crl.sh
dir=$1 name=$2 address=${3:-}
days=${DAYS:-825}
case $name$address in *.* | *:*) use=${USE:-serverAuth} ;; *) use=${USE:-clientAuth} ;; esac
umask 077
mkdir -p "$dir"
cd "$dir"
if [ ! -e ca.key ]; then
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout ca.key -out ca.crt -days 3650 \
    -subj "/CN=Edge lab CA" -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign 2>/dev/null
fi
[ -e "$name.key" ] || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$name.key" 2>/dev/null
cat >"$name.ext" <<EXT
subjectAltName=DNS:$name${address:+,IP:$address}
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=$use
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
EXT
openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
openssl x509 -req -in "$name.csr" -CA ca.crt -CAkey ca.key -days "$days" -set_serial "0x$(openssl rand -hex 16)" \
  -extfile "$name.ext" -out "$name.crt.new" 2>/dev/null
mkdir -p issued
cp "$name.crt.new" "issued/$name.$(openssl x509 -in "$name.crt.new" -noout -serial | cut -d= -f2).crt"
mv "$name.crt.new" "$name.crt"
rm "$name.csr" "$name.ext"
chmod 644 ca.crt "$name.crt"
[ -e crl.pem ] || DAYS= "$lab_crl" .
