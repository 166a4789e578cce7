import assert from 'node:assert/strict';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { execa } from 'execa';
import { ensurePackages, isRoot } from '../../scripts/lib/packages.ts';
import { TestDaemon } from '../support/daemon.ts';

/**
 * What the API tells of itself by reflection, to a client that takes nothing but what protoc would write:
 * google.protobuf's own descriptor pool.
 */

const PYTHON = '/usr/bin/python3';
const CLIENT = join(import.meta.dirname, '../support/strict-reflection.py');

interface Told {
  readonly methods: Readonly<Record<string, readonly string[]>>;
  readonly files: readonly string[];
  /** Of each message, the type of each field. */
  readonly messages: Readonly<Record<string, Readonly<Record<string, string>>>>;
  readonly answer: { readonly ok?: string; readonly code?: string };
}

async function hasClient(): Promise<boolean> {
  const result = await execa(PYTHON, ['-c', 'import grpc, google.protobuf.descriptor_pool'], { reject: false });
  return result.exitCode === 0;
}

const skip =
  isRoot() || (await hasClient())
    ? false
    : 'the strict client is not installed: sudo apt-get install python3-grpcio python3-protobuf';

async function ask(socket: string, service: string, method: string): Promise<Told> {
  const { exitCode, stdout, stderr } = await execa(PYTHON, [CLIENT, socket, service, method], { reject: false });
  assert.equal(exitCode, 0, stderr);
  return JSON.parse(stdout) as Told;
}

const REFLECTION = ['grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection'];
const REFLECTION_FILES = ['grpc/reflection/v1/reflection.proto', 'grpc/reflection/v1alpha/reflection.proto'];

await describe('reflection, to a strict client', { skip }, async () => {
  before(() => ensurePackages(['python3-grpcio', 'python3-protobuf'], hasClient));

  await it('the API: the files of proto/ with their names and dependencies, and all to call it', async () => {
    await using daemon = await TestDaemon.start({ config: { reflection: 'on' } });
    const { methods, files, messages, answer } = await ask(daemon.socket, 'qshim.v1.Sandboxes', 'List');
    assert.deepEqual(
      Object.keys(methods),
      [
        ...REFLECTION,
        'grpc.health.v1.Health',
        ...['Budgets', 'Events', 'Operations', 'Sandboxes', 'Stats', 'Volumes'].map((name) => `qshim.v1.${name}`),
      ].sort(),
    );
    assert.ok(methods['qshim.v1.Volumes']?.includes('AttachMany'));
    assert.deepEqual(files, [
      'google/protobuf/timestamp.proto',
      'grpc/health/v1/health.proto',
      ...REFLECTION_FILES,
      ...['budgets', 'common', 'events', 'operations', 'sandboxes', 'stats', 'volumes'].map(
        (name) => `qshim/v1/${name}.proto`,
      ),
    ]);
    const sandbox = messages['qshim.v1.Sandbox'];
    assert.equal(sandbox?.['created_at'], 'google.protobuf.Timestamp');
    assert.equal(messages['qshim.v1.SandboxSpec']?.['labels'], 'map of scalars');
    // An empty list is an empty message.
    assert.deepEqual(answer, { ok: '' });
  });
});
