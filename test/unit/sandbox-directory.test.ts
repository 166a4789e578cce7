import assert from 'node:assert/strict';
import { basename, dirname } from 'node:path';
import { it } from 'node:test';
import { sandboxDirectory, sandboxFiles, sandboxesDirectory } from '../../src/qemu/files.ts';

it('the sockets of every sandbox have paths that a unix socket may have, below every state_dir that is allowed', () => {
  for (let stateBytes = 1; stateBytes <= 60; stateBytes += 1) {
    const stateDir = `/${'s'.repeat(stateBytes - 1)}`;
    for (let idBytes = 1; idBytes <= 64; idBytes += 1) {
      const files = sandboxFiles(sandboxDirectory(stateDir, 'i'.repeat(idBytes)));
      for (const path of [files.qmpSocket, files.spareSocket, files.agentSocket, files.ueventSocket]) {
        assert.ok(Buffer.byteLength(path) <= 107, path);
      }
    }
  }
});

it('no id names a file of its own: not one of the daemon, not what was put aside, not the place of another', () => {
  const ids = ['lock.sock', 'events.jsonl', 'boot-id', 'x.left-1', 'x', 'pool'];
  const names = ids.map((id) => basename(sandboxDirectory('/s', id)));
  for (const name of names) assert.match(name, /^[A-Za-z0-9_-]{22}$/);
  // The hash of an id is an id too, and has a place of its own.
  const all = [...names, ...names.map((name) => basename(sandboxDirectory('/s', name)))];
  assert.equal(new Set(all).size, all.length);
  assert.equal(dirname(sandboxDirectory('/s', 'x')), sandboxesDirectory('/s'));
});
