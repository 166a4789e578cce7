import assert from 'node:assert/strict';
import { join } from 'node:path';
import { it } from 'node:test';
import { sandboxFiles } from '../../src/qemu/files.ts';
import { directoryName } from '../../src/sandbox/manager.ts';

it('the sockets of every sandbox have paths that a unix socket may have, below every state_dir that is allowed', () => {
  for (let stateBytes = 1; stateBytes <= 60; stateBytes += 1) {
    const stateDir = `/${'s'.repeat(stateBytes - 1)}`;
    for (let idBytes = 1; idBytes <= 64; idBytes += 1) {
      const files = sandboxFiles(join(stateDir, directoryName('i'.repeat(idBytes), stateDir)));
      for (const path of [files.qmpSocket, files.spareSocket, files.agentSocket, files.ueventSocket]) {
        assert.ok(Buffer.byteLength(path) <= 107, path);
      }
    }
  }
});

it('an id names its directory as it always did; a long one stays apart from others that begin alike', () => {
  const short = 'a'.repeat(36);
  assert.equal(directoryName(short, '/run/qshim/state'), short);
  const long = 'b'.repeat(37);
  assert.match(directoryName(long, '/run/qshim/state'), /^b{23}-[0-9a-f]{12}$/);
  assert.notEqual(directoryName(`${long}1`, '/s'), directoryName(`${long}2`, '/s'));
});
