#!/bin/sh
# Runs test/host in the VM of `npm run test:host`. What comes of it goes to the second serial port, logs to the first.
set -eu
stty -F /dev/ttyS1 raw -echo
export NO_COLOR=1
code=0
node_modules/.bin/node --disable-warning=ExperimentalWarning --test --test-concurrency=1 \
  --test-reporter=tap 'test/host/*.test.ts' > /dev/ttyS1 || code=$?
journalctl --no-pager --boot -o cat -u qshimd -u 'qshim-*' > /dev/ttyS0
exit "$code"
