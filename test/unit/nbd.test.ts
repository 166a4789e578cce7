import assert from 'node:assert/strict';
import { symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { volumeSpecFrom } from '../../src/api/convert.ts';
import { ShimError } from '../../src/base/errors.ts';
import { attachRequest } from '../../src/cli/volume-requests.ts';
import { volumesFromJson } from '../../src/cli/batch-requests.ts';
import { configWith, type Config } from '../../src/config.ts';
import { loadApi } from '../../src/grpc/schema.ts';
import type { BlockNodeInfo } from '../../src/qmp/protocol.ts';
import { namesFor } from '../../src/volume/model/names.ts';
import { slotAt } from '../../src/volume/model/slots.ts';
import { aioModes, spelledOut } from '../../src/volume/plan.ts';
import type { QemuObject } from '../../src/volume/model/objects.ts';
import { nbd, type NbdSource } from '../../src/volume/source/nbd.ts';
import { moduleOf, recogniseSource } from '../../src/volume/source/registry.ts';
import { completeSpec, inspectSource, volumeSpecSchema, type VolumeSpec } from '../../src/volume/spec.ts';
import { BASE_SPEC } from '../support/base-spec.ts';
import { NbdPeer, ack, blockSizeInfo, exportInfo, greeting } from '../support/nbd-peer.ts';

const UNIX: NbdSource = {
  kind: 'nbd',
  server: { type: 'unix', path: '/run/nbd/a.sock' },
  exportName: 'disk',
  reconnectDelayS: 0,
  tls: undefined,
};
const TCP: NbdSource = {
  kind: 'nbd',
  server: { type: 'inet', host: 'storage.example', port: 10_809 },
  exportName: 'disk',
  reconnectDelayS: 30,
  tls: 'tenant-1',
};

const specOf = (source: NbdSource): VolumeSpec => ({ ...BASE_SPEC, source });
/** The message of the API that `qshim volume attach --nbd URI` sends. */
const messageFor = (uri: string): unknown =>
  attachRequest('sb', 'v', { sources: { nbd: uri } }, '/cwd').spec?.nbdExport;

describe('the URI of an NBD export', () => {
  const MEANINGS: readonly (readonly [string, object])[] = [
    ['nbd://h', { host: 'h', port: 10_809 }],
    ['nbd://h/', { host: 'h', port: 10_809 }],
    ['nbd://h:1/', { host: 'h', port: 1 }],
    ['nbd://127.0.0.1:20809/disk', { host: '127.0.0.1', port: 20_809, exportName: 'disk' }],
    ['nbd://[::1]/disk', { host: '::1', port: 10_809, exportName: 'disk' }],
    ['nbd://[fe80::1]:7/disk', { host: 'fe80::1', port: 7, exportName: 'disk' }],
    ['nbd://h//disk', { host: 'h', port: 10_809, exportName: '/disk' }],
    ['nbd://h/a/../b', { host: 'h', port: 10_809, exportName: 'a/../b' }],
    ['nbd://h/hello%20w%C3%B6rld', { host: 'h', port: 10_809, exportName: 'hello wörld' }],
    ['nbd://h/a%3Fb%23c%25', { host: 'h', port: 10_809, exportName: 'a?b#c%' }],
    ['nbd://h/a+b', { host: 'h', port: 10_809, exportName: 'a+b' }],
    ['nbd://h/d?reconnect-delay=30', { host: 'h', port: 10_809, exportName: 'd', reconnectDelayS: 30 }],
    ['nbds://h/d?tls=t', { host: 'h', port: 10_809, exportName: 'd', tlsCredentials: 't' }],
    ['nbd+unix:///d?socket=/run/a.sock', { socket: '/run/a.sock', exportName: 'd' }],
    ['nbd+unix://?socket=/run/a.sock', { socket: '/run/a.sock' }],
    ['nbd+unix:///d?socket=a%26b.sock', { socket: '/cwd/a&b.sock', exportName: 'd' }],
    ['nbd+unix:///?socket=../s&reconnect-delay=1', { socket: '/s', reconnectDelayS: 1 }],
    ['nbds+unix:///?tls=t&socket=/s', { socket: '/s', tlsCredentials: 't' }],
  ];
  for (const [uri, message] of MEANINGS) {
    it(`${uri} is understood`, () => {
      assert.deepEqual(messageFor(uri), { exportName: '', reconnectDelayS: 0, tlsCredentials: '', ...message });
    });
  }

  const MISTAKES: readonly (readonly [string, RegExp])[] = [
    ['', /nbd:\/\/HOST\[:PORT\]\/EXPORT/],
    ['disk', /nbd:\/\/HOST/],
    ['http://h/disk', /nbd:\/\/HOST/],
    ['NBD://h/disk', /nbd:\/\/HOST/],
    ['nbd:h:10809', /nbd:\/\/HOST/],
    ['nbd+vsock:///d', /nbd:\/\/HOST/],
    ['nbd://h/d#e', /nbd:\/\/HOST/],
    ['nbd:///d', /the host is/],
    ['nbd://user@h/d', /the host is/],
    ['nbd://::1/d', /the host is/],
    ['nbd://h:/d', /the host is/],
    ['nbd://h:x/d', /the host is/],
    ['nbd://h:123456/d', /the host is/],
    ['nbd://h/d?socket=/s', /nbd\+unix goes with/],
    ['nbd+unix:///d', /nbd\+unix goes with/],
    ['nbd+unix:///d?socket=', /socket stands once, with a value/],
    ['nbd+unix:///d?socket', /socket stands once, with a value/],
    ['nbd+unix:///d?socket=/a&socket=/b', /socket stands once/],
    ['nbd+unix://h/d?socket=/s', /has no host/],
    ['nbds://h/d', /goes with the parameter tls/],
    ['nbd://h/d?tls=t', /goes with the parameter tls/],
    ['nbd://h/d?tls-hostname=x', /socket, tls, reconnect-delay, and not tls-hostname/],
    ['nbd://h/d?constructor=1', /and not constructor/],
    ['nbd://h/d?reconnect-delay=soon', /number of seconds/],
    ['nbd://h/d?reconnect-delay=-1', /number of seconds/],
    ['nbd://h/d?reconnect-delay=1e9', /number of seconds/],
    ['nbd://h/100%', /% that encodes nothing/],
    ['nbd://h/%ff', /% that encodes nothing/],
  ];
  for (const [uri, says] of MISTAKES) {
    it(`${uri === '' ? 'nothing' : uri} is refused, and the refusal names option and value`, () => {
      assert.throws(
        () => messageFor(uri),
        (error) => {
          assert.ok(error instanceof Error);
          assert.ok(error.message.startsWith(`--nbd ${uri}: `), error.message);
          assert.match(error.message, says);
          return true;
        },
      );
    });
  }

  it('goes with no other source', () => {
    const sources = { nbd: 'nbd://h/d', raw: '/a' };
    assert.throws(() => attachRequest('sb', 'v', { sources }, '/cwd'), /exactly one of .*--nbd URI/);
  });

  it('a socket in a list of volumes is made absolute, and a host is left alone', () => {
    const list = [{ socket: 'a.sock', exportName: 'd' }, { host: 'h' }];
    const text = JSON.stringify(list.map((nbdExport, index) => ({ volumeId: `v${index}`, spec: { nbdExport } })));
    assert.deepEqual(
      volumesFromJson(text, '/cwd').map(({ spec }) => spec?.nbdExport),
      [{ socket: '/cwd/a.sock', exportName: 'd' }, { host: 'h' }],
    );
  });

  it('is what tables show', () => {
    assert.equal(
      nbd.command.show(nbd.toMessage(TCP)),
      'nbds://storage.example:10809/disk?tls=tenant-1&reconnect-delay=30',
    );
    assert.equal(nbd.command.show(nbd.toMessage(UNIX)), 'nbd+unix:///disk?socket=/run/nbd/a.sock');
  });
});

const exportName = fc.oneof(
  fc.constantFrom('', 'disk', '/a/../b', 'ü b', 'a?b=c&d#e', '%41', '100%', 'x:y@z'),
  fc.string({ unit: 'grapheme', maxLength: 30 }).filter((text) => !/\p{Cc}/u.test(text) && text.isWellFormed()),
);
const server: fc.Arbitrary<NbdSource['server']> = fc.oneof(
  fc.record(
    {
      type: fc.constant('unix' as const),
      path: fc.constantFrom('/run/a.sock', '/run/ü b/100%', '/run/a?b&c#d=e', '/run/a:1'),
    },
    { noNullPrototype: true },
  ),
  fc.record(
    {
      type: fc.constant('inet' as const),
      host: fc.constantFrom('localhost', '127.0.0.1', '::1', 'fe80::1', 'storage-1.example'),
      port: fc.integer({ min: 1, max: 65_535 }),
    },
    { noNullPrototype: true },
  ),
);
const anySource: fc.Arbitrary<NbdSource> = fc.record(
  {
    kind: fc.constant('nbd' as const),
    server,
    exportName,
    reconnectDelayS: fc.integer({ min: 0, max: 3600 }),
    tls: fc.constantFrom(undefined, 'tenant-1', 'a.b_c'),
  },
  { noNullPrototype: true },
);

describe('an NBD source', () => {
  it('comes back from the wire, from the journal and from its own description', () => {
    const { Volumes } = loadApi().qshim.v1;
    fc.assert(
      fc.property(anySource, (source) => {
        const request = { sandboxId: 'sb', volumeId: 'v', spec: { nbdExport: nbd.toMessage(source) } };
        const { requestSerialize, requestDeserialize } = Volumes.service.Attach;
        const arrived = volumeSpecFrom(requestDeserialize(requestSerialize(request)).spec);
        const spec = completeSpec(arrived, 'serial', 1);
        assert.deepEqual(spec.source, source);
        const journal = JSON.stringify(spec, (_name, value: unknown) => value ?? null);
        assert.deepEqual(volumeSpecSchema.parse(JSON.parse(journal)), spec);
        // Once resolved: a socket behind links, and the directory of the credentials.
        const found = source.server.type === 'unix' ? { type: 'unix' as const, path: '/real/a b' } : source.server;
        const resolved = { ...source, server: found, tls: source.tls && `/etc/qshim/nbd-tls/${source.tls}` };
        assert.deepEqual(moduleOf(source).resolved(source, moduleOf(resolved).describe(resolved)), resolved);
      }),
      { numRuns: 300 },
    );
  });

  it('has defaults, and a host is one in whatever case', () => {
    const message = { nbdExport: { host: 'Storage.EXAMPLE' } };
    const { Volumes } = loadApi().qshim.v1;
    const { requestSerialize, requestDeserialize } = Volumes.service.Attach;
    const { spec } = requestDeserialize(requestSerialize({ sandboxId: 'sb', volumeId: 'v', spec: message }));
    assert.deepEqual(completeSpec(volumeSpecFrom(spec), 'serial', 1).source, {
      kind: 'nbd',
      server: { type: 'inet', host: 'storage.example', port: 10_809 },
      exportName: '',
      reconnectDelayS: 0,
      tls: undefined,
    });
  });

  const WRONG: readonly (readonly [string, object, string, string?])[] = [
    ['no server', {}, 'spec.source'],
    ['a port without a host', { socket: '/s', port: 1 }, 'spec.source.port'],
    ['a port that there is not', { host: 'h', port: 65_536 }, 'spec.source.port'],
    ['a relative socket', { socket: 's' }, 'spec.source.socket', 'INVALID_PATH'],
    ['a socket by a detour', { socket: '/a/../s' }, 'spec.source.socket', 'INVALID_PATH'],
    ['a host with a port in it', { host: 'h:1' }, 'spec.source.host'],
    ['a host with a path in it', { host: 'h/x' }, 'spec.source.host'],
    ['a host in brackets', { host: '[::1]' }, 'spec.source.host'],
    ['an address with a zone', { host: 'fe80::1%eth0' }, 'spec.source.host'],
    ['a host that is too long', { host: 'h'.repeat(254) }, 'spec.source.host'],
    ['an export name that is too long', { host: 'h', exportName: 'ü'.repeat(513) }, 'spec.source.export_name'],
    ['an export name with a line break', { host: 'h', exportName: 'a\nb' }, 'spec.source.export_name'],
    ['an export name with NUL', { host: 'h', exportName: 'a\0b' }, 'spec.source.export_name'],
    ['a delay without end', { host: 'h', reconnectDelayS: 3601 }, 'spec.source.reconnect_delay_s'],
    ['credentials by a path', { host: 'h', tlsCredentials: '../t' }, 'spec.source.tls_credentials', 'INVALID_ID'],
    ['credentials with a slash', { host: 'h', tlsCredentials: 'a/b' }, 'spec.source.tls_credentials', 'INVALID_ID'],
  ];
  for (const [name, message, field, reason = 'INVALID_FIELD'] of WRONG) {
    it(`${name} is refused`, () => {
      assert.throws(
        () => completeSpec({ ...BASE_SPEC, source: nbd.fromMessage(message) }, 'serial', 1),
        (error) => {
          assert.ok(error instanceof ShimError);
          assert.deepEqual([error.code, error.reason, error.metadata['field']], ['INVALID_ARGUMENT', reason, field]);
          return true;
        },
      );
    });
  }

  it('has no aio modes, and takes none; carries no host_luks', () => {
    assert.deepEqual(aioModes(specOf(UNIX), true), [undefined]);
    for (const aio of ['threads', 'native', 'io_uring'] as const) {
      assert.throws(() => completeSpec({ ...specOf(UNIX), aio, cache: 'none' }, 'serial', 1), {
        code: 'INVALID_ARGUMENT',
        metadata: { field: 'spec.aio', value: aio },
      });
    }
    const key = { kind: 'file', path: '/keys/a' } as const;
    const encryption = { kind: 'host-luks', key, format: 'never', sizeBytes: 0, cipher: '', hash: '' } as const;
    assert.throws(
      () => completeSpec({ ...specOf(UNIX), encryption: { ...encryption, iterationMs: 0, uuid: '' } }, 'serial', 1),
      { code: 'INVALID_ARGUMENT', metadata: { field: 'spec.source', value: 'nbd_export' } },
    );
  });
});

describe('what lies behind an NBD volume', () => {
  const MIB = 1024 * 1024;
  const answers = (sizeBytes: number, minBlockBytes = 1, flags = 1): readonly Buffer[] => [
    greeting(),
    blockSizeInfo(minBlockBytes),
    exportInfo(BigInt(sizeBytes), flags),
    ack(),
  ];
  const READ_ONLY = 0b11;
  const at = (path: string): NbdSource => ({ ...UNIX, server: { type: 'unix', path } });
  const look = (source: NbdSource, config: Partial<Config>, changes: Partial<VolumeSpec> = {}): Promise<unknown> =>
    inspectSource({ ...specOf(source), ...changes }, configWith(config));

  it('its size, its resolved socket, and one identity for all names of the socket', async () => {
    await using peer = await NbdPeer.saying(...answers(MIB));
    const link = join(peer.directory, 'link');
    await symlink(peer.path, link);
    const expected = {
      resolved: at(peer.path),
      identity: `nbd:unix:${peer.path}:disk`,
      sizeBytes: MIB,
      endsInSector: true,
      emptiness: 'look',
    };
    for (const path of [peer.path, link]) {
      assert.deepEqual(await look(at(path), { allowed_roots: [peer.directory] }), expected);
    }
  });

  it('identities keep server and export apart', async () => {
    const sources: readonly NbdSource[] = [
      { ...UNIX, server: { type: 'unix', path: '/a' }, exportName: 'b:c' },
      { ...UNIX, server: { type: 'unix', path: '/a:b' }, exportName: 'c' },
      { ...TCP, exportName: '' },
      { ...TCP, server: { type: 'inet', host: 'storage.example', port: 1 } },
      TCP,
    ];
    const identities = await Promise.all(sources.map((source) => nbd.identify(source)));
    assert.equal(new Set(identities).size, sources.length);
    assert.equal(identities.at(-1), 'nbd:storage.example:10809:disk');
    assert.equal(await nbd.identify({ ...TCP, tls: undefined, reconnectDelayS: 0 }), identities.at(-1));
  });

  it('a socket outside the roots, or what is no socket, is never spoken to', async () => {
    await using peer = await NbdPeer.saying(...answers(MIB));
    await assert.rejects(look(at(peer.path), { allowed_roots: ['/nowhere'] }), {
      code: 'PERMISSION_DENIED',
      reason: 'OUTSIDE_ALLOWED_ROOTS',
    });
    const file = join(peer.directory, 'file');
    await writeFile(file, 'bytes');
    await assert.rejects(look(at(file), { allowed_roots: [peer.directory] }), { reason: 'WRONG_FILE_TYPE' });
    await assert.rejects(look(at(`${peer.path}.none`), { allowed_roots: [peer.directory] }), {
      reason: 'SOURCE_NOT_FOUND',
    });
    assert.equal(peer.clients, 0);
  });

  it('a host is spoken to only as the operator spells it', async () => {
    const local: NbdSource = { ...TCP, server: { type: 'inet', host: '127.0.0.1', port: 1 }, tls: undefined };
    for (const hosts of [[], ['127.0.0.2'], ['127.0.0.1:2'], ['localhost'], ['127.0.0.1:10809']]) {
      await assert.rejects(look(local, { nbd_hosts: hosts }), {
        code: 'PERMISSION_DENIED',
        reason: 'NBD_HOST_NOT_ALLOWED',
      });
    }
    for (const hosts of [['127.0.0.1'], ['other', '127.0.0.1:1']]) {
      await assert.rejects(look(local, { nbd_hosts: hosts }), { reason: 'NBD_SERVER_UNREACHABLE' });
    }
    for (const wrong of ['a/b', '', 'a b']) assert.throws(() => configWith({ nbd_hosts: [wrong] }), /HOST:PORT/);
    const six: NbdSource = { ...local, server: { type: 'inet', host: '::1', port: 1 } };
    for (const hosts of [['::1'], ['[::1]:1']]) {
      await assert.rejects(look(six, { nbd_hosts: hosts }), { reason: 'NBD_SERVER_UNREACHABLE' });
    }
  });

  it('a read-only export takes a read-only volume only', async () => {
    await using peer = await NbdPeer.saying(...answers(MIB, 1, READ_ONLY));
    const config = { allowed_roots: [peer.directory] };
    await assert.rejects(look(at(peer.path), config), { code: 'PERMISSION_DENIED', reason: 'NBD_EXPORT_READ_ONLY' });
    assert.ok(await look(at(peer.path), config, { readOnly: true, discard: 'ignore' }));
  });

  const SIZES: readonly (readonly [bytes: number, minBlock: number, logical: 512 | 4096, fits: boolean])[] = [
    [0, 1, 512, false],
    [1000, 1, 512, false],
    [512, 1, 512, true],
    [512, 1, 4096, false],
    [512, 4096, 512, false],
    [8192, 4096, 512, true],
    [65_536, 65_536, 4096, true],
    [65_536 + 4096, 65_536, 4096, false],
  ];
  for (const [bytes, minBlock, logicalBlockSize, fits] of SIZES) {
    it(`${bytes} bytes in blocks of ${minBlock} ${fits ? 'are' : 'are not'} a disk of blocks of ${logicalBlockSize}`, async () => {
      await using peer = await NbdPeer.saying(...answers(bytes, minBlock));
      const work = look(at(peer.path), { allowed_roots: [peer.directory] }, { logicalBlockSize });
      if (fits) assert.ok(await work);
      else await assert.rejects(work, { code: 'INVALID_ARGUMENT', reason: 'INVALID_SIZE' });
    });
  }
});

const NAMES = namesFor('a', 7);
const COMMON = {
  'read-only': false,
  'auto-read-only': false,
  discard: 'unmap',
  cache: { direct: false, 'no-flush': false },
} as const;

function objectsOf(source: NbdSource, relay?: string): readonly QemuObject[] {
  const seat = { slot: slotAt(30), placement: { vectors: 2, iothreads: [] } };
  return spelledOut({ spec: specOf(source), resolved: source, names: NAMES, seat, relay }, undefined, false);
}

describe('an NBD volume in QEMU', () => {
  it('is a node and a device', () => {
    const [node, device, ...more] = objectsOf(UNIX);
    assert.deepEqual([device?.type, more], ['device', []]);
    assert.deepEqual(node?.add.arguments, {
      driver: 'raw',
      'node-name': 'vol-7-fmt',
      'detect-zeroes': 'off',
      ...COMMON,
      file: {
        driver: 'nbd',
        'node-name': 'vol-7-file',
        server: { type: 'unix', path: '/run/nbd/a.sock' },
        export: 'disk',
        'reconnect-delay': 0,
        'open-timeout': 5,
        ...COMMON,
      },
    });
    assert.deepEqual(node.gone, ['vol-7-fmt', 'vol-7-file']);
  });

  it('with TLS has credentials before the node, which stay as long as it does', () => {
    const [credentials, node, device, ...more] = objectsOf({ ...TCP, tls: '/etc/qshim/nbd-tls/tenant-1' });
    assert.deepEqual([device?.type, more], ['device', []]);
    assert.deepEqual(credentials, {
      type: 'object',
      id: 'vol-7-tls-tenant-1',
      step: 'add-tls-credentials',
      add: {
        command: 'object-add',
        arguments: {
          'qom-type': 'tls-creds-x509',
          id: 'vol-7-tls-tenant-1',
          dir: '/etc/qshim/nbd-tls/tenant-1',
          endpoint: 'client',
          'verify-peer': true,
        },
      },
      remove: { command: 'object-del', arguments: { id: 'vol-7-tls-tenant-1' } },
      gone: ['vol-7-tls-tenant-1'],
    });
    assert.ok(node?.type === 'node' && 'file' in node.add.arguments);
    assert.deepEqual(node.add.arguments.file, {
      driver: 'nbd',
      'node-name': 'vol-7-file',
      server: { type: 'inet', host: 'storage.example', port: '10809' },
      export: 'disk',
      'reconnect-delay': 30,
      'open-timeout': 5,
      'tls-creds': 'vol-7-tls-tenant-1',
      'tls-hostname': 'storage.example',
      ...COMMON,
    });
    const [, unix] = objectsOf({ ...UNIX, tls: '/etc/qshim/nbd-tls/tenant-1' });
    assert.ok(unix?.type === 'node' && 'file' in unix.add.arguments && typeof unix.add.arguments.file === 'object');
    assert.ok(unix.add.arguments.file.driver === 'nbd');
    assert.equal(unix.add.arguments.file['tls-hostname'], 'localhost');
  });

  it('by a relay: its socket in place of the server, the name to verify as it was, credentials beside the socket', () => {
    const [credentials, node] = objectsOf({ ...TCP, tls: '/etc/qshim/nbd-tls/tenant-1' }, '/run/s/nbd-7');
    assert.ok(credentials?.type === 'object' && credentials.add.arguments['qom-type'] === 'tls-creds-x509');
    assert.equal(credentials.add.arguments.dir, '/run/s/nbd-7.tls');
    assert.equal(credentials.files, '/etc/qshim/nbd-tls/tenant-1');
    assert.ok(node?.type === 'node' && 'file' in node.add.arguments && typeof node.add.arguments.file === 'object');
    assert.ok(node.add.arguments.file.driver === 'nbd');
    const { server, export: name, 'tls-hostname': verified } = node.add.arguments.file;
    assert.deepEqual([server, name, verified], [{ type: 'unix', path: '/run/s/nbd-7' }, 'disk', 'storage.example']);
  });
});

describe('an NBD volume whose journal is lost', () => {
  const node = (drv: string, file: string): BlockNodeInfo => ({
    'node-name': drv === 'raw' ? NAMES.root : NAMES.protocol,
    drv,
    file,
    ro: false,
    encrypted: false,
    cache: { writeback: true, direct: false, 'no-flush': false },
    image: { filename: file, format: drv, 'virtual-size': 1 },
  });
  const recognise = (file: string, objects: readonly string[] = []): unknown =>
    recogniseSource({ root: node('raw', file), protocol: node('nbd', file), objects });
  const relayed = (socket: string): NbdSource['server'] | undefined =>
    socket === '/run/s/nbd-7' ? TCP.server : undefined;
  /** As QEMU names the node (block/nbd.c, nbd_refresh_filename). */
  const filename = ({ server: found, exportName: name }: NbdSource): string =>
    found.type === 'unix' ? `nbd+unix:///${name}?socket=${found.path}` : `nbd://${found.host}:${found.port}/${name}`;

  it('behind a relay comes back as what is behind it', () => {
    const file = filename({ ...TCP, server: { type: 'unix', path: '/run/s/nbd-7' } });
    const found = recogniseSource({ root: node('raw', file), protocol: node('nbd', file), objects: [], relayed });
    assert.deepEqual(found, { ...TCP, reconnectDelayS: 0, tls: undefined });
  });

  it('comes back, but for its reconnect delay, of which QEMU tells nothing', () => {
    fc.assert(
      fc.property(anySource, (source) => {
        const helpers = nbd.helpers(source, NAMES, undefined).map(({ id }) => id);
        assert.deepEqual(recognise(filename(source), helpers), { ...source, reconnectDelayS: 0 });
      }),
      { numRuns: 300 },
    );
  });

  const TOLD: readonly (readonly [string, object | undefined])[] = [
    ['nbd://localhost:20810', { server: { type: 'inet', host: 'localhost', port: 20_810 }, exportName: '' }],
    ['nbd://::1:20810/e', { server: { type: 'inet', host: '::1', port: 20_810 }, exportName: 'e' }],
    ['nbd://[::1]:20810/e', { server: { type: 'inet', host: '::1', port: 20_810 }, exportName: 'e' }],
    ['nbd+unix:///?socket=/a b', { server: { type: 'unix', path: '/a b' }, exportName: '' }],
    ['nbd+unix://?socket=/a', { server: { type: 'unix', path: '/a' }, exportName: '' }],
    ['nbd+unix:///my export%?x=1?socket=/a', { server: { type: 'unix', path: '/a' }, exportName: 'my export%?x=1' }],
    [
      'json:{"server.port": "20810", "server.host": "127.0.0.1", "driver": "nbd", "export": "exp", "server.type": "inet", "server.ipv4": true}',
      { server: { type: 'inet', host: '127.0.0.1', port: 20_810 }, exportName: 'exp' },
    ],
    [
      'json:{"server.path": "/a", "driver": "nbd", "server.type": "unix"}',
      { server: { type: 'unix', path: '/a' }, exportName: '' },
    ],
    ['nbd+unix:///a?socket=/b?socket=/c', undefined],
    ['json:{"driver": "nbd", "server.type": "vsock"}', undefined],
    ['json:{"driver": "nbd", "server.type": "un', undefined],
    ['nbd://localhost', undefined],
    ['', undefined],
  ];
  for (const [file, found] of TOLD) {
    it(`QEMU's ${file === '' ? 'silence' : file} is ${found === undefined ? 'not guessed at' : 'understood'}`, () => {
      if (found === undefined) assert.throws(() => recognise(file), /no kind of source/);
      else assert.deepEqual(recognise(file), { kind: 'nbd', reconnectDelayS: 0, tls: undefined, ...found });
    });
  }

  it('credentials of another volume are not its own', () => {
    const found = recognise('nbd://h:1/disk', ['vol-70-tls-b', 'vol-7-key', 'vol-7-tls-a.b']);
    assert.deepEqual(found, {
      ...TCP,
      server: { type: 'inet', host: 'h', port: 1 },
      reconnectDelayS: 0,
      tls: 'a.b',
    });
  });
});
