#!/bin/sh
# Makes the certificates of the tests anew: an authority, a server and a client signed by it, and a stranger's authority.
# They prove nothing to anybody but the tests; valid for a hundred years so that no test ends with them.
set -eu
cd "$(dirname "$0")"
authority() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.crt" -days 36500 -subj "/CN=$2" \
    -addext "basicConstraints=critical,CA:TRUE" 2>/dev/null
}
signed() {
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
  printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n' > extensions
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 36500 -extfile extensions -out "$1.crt" 2>/dev/null
  rm -f "$1.csr" extensions ca.srl
}
authority ca test-authority
authority stranger strange-authority
signed server
signed client
