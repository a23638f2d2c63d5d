#!/bin/sh
# Revokes certificates of the lab's authority: lab_crl.sh DIR [NAME…]. Every certificate that NAME ever had goes on DIR/crl.pem,
# its key is laid aside, so that the next lab_ca.sh DIR NAME makes a new one. Without names the list is only renewed:
# it ends after DAYS (3650), and a broker with a list that has ended lets nobody in.
set -eu
cd "$1"
shift
umask 077
if [ ! -e ca.key ]; then
  echo "lab_crl.sh: $PWD holds no ca.key: make the authority with lab_ca.sh, or fetch its key from where it is kept" >&2
  exit 1
fi
for name; do # nothing is revoked before all of them are known
  if [ ! -e "$name.crt" ] && ! ls issued/"$name".*.crt >/dev/null 2>&1; then
    echo "lab_crl.sh: $PWD knows no certificate of $name: nothing was revoked" >&2
    exit 1
  fi
done
mkdir -p issued
touch crl.index
[ -e crl.number ] || echo 1000 >crl.number
cat >crl.cnf <<CNF
[ca]
default_ca = lab
[lab]
database = crl.index
crlnumber = crl.number
certificate = ca.crt
private_key = ca.key
default_md = sha256
default_crl_days = ${DAYS:-3650}
unique_subject = no
CNF
for name; do
  for certificate in issued/"$name".*.crt "$name.crt"; do
    [ -e "$certificate" ] || continue
    serial=$(openssl x509 -in "$certificate" -noout -serial)
    if ! grep -q "^R.*	${serial#serial=}	" crl.index; then
      openssl ca -config crl.cnf -revoke "$certificate" -crl_reason keyCompromise 2>/dev/null
    fi
  done
done
openssl ca -config crl.cnf -gencrl -out crl.pem.new 2>/dev/null
mv crl.pem.new crl.pem
chmod 644 crl.pem
rm -f crl.cnf
for name; do
  for kind in crt key; do
    if [ -e "$name.$kind" ]; then mv "$name.$kind" "issued/$name.revoked.$kind"; fi
  done
done
