import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { it } from 'node:test';
import { Metadata, Server, ServerCredentials, status, type sendUnaryData } from '@grpc/grpc-js';
import { responseSchema } from '../../src/relay/control.ts';
import { DaemonClient } from '../../src/relay/daemon.ts';

const PATIENCE_MS = 300;
const identity = (bytes: Buffer): Buffer => bytes;

it('the relay’s patience counts from the moment at which the daemon is away, not from the call’s beginning', async () => {
  await using cleanup = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'qshim-relay-'));
  cleanup.defer(() => rm(directory, { recursive: true }));
  const socket = `unix:${join(directory, 'daemon.sock')}`;
  const server = new Server();
  let calls = 0;
  const handler = (_call: unknown, callback: sendUnaryData<Buffer>): void => {
    calls += 1;
    // Longer than the relay's patience, and only then as a daemon that goes.
    if (calls === 1) setTimeout(() => callback({ code: status.UNAVAILABLE, details: 'gone' }), PATIENCE_MS * 2);
    else callback(null, Buffer.from('done'));
  };
  const how = { requestStream: false, responseStream: false, requestSerialize: identity, requestDeserialize: identity };
  const method = { path: '/a/Start', ...how, responseSerialize: identity, responseDeserialize: identity };
  server.addService({ Start: method }, { Start: handler });
  await new Promise<void>((resolve, reject) => {
    server.bindAsync(socket, ServerCredentials.createInsecure(), (error) => (error ? reject(error) : resolve()));
  });
  cleanup.defer(() => server.forceShutdown());
  const client = new DaemonClient(join(directory, 'daemon.sock'), PATIENCE_MS);
  cleanup.defer(() => client.close());
  const call = { request: Buffer.alloc(0), metadata: new Metadata(), deadline: Infinity };
  const answer = await client.pass({ path: '/a/Start', ...call, cancelled: new AbortController().signal });
  assert.equal(answer.toString(), 'done');
});

it('a relay of a later version, which says more, is understood', () => {
  const about = { pid: 1, socket: '/s', backend: '/b', version: 99 };
  assert.deepEqual(responseSchema.parse({ ...about, more: true }), about);
});
