import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { PROTO_DIR, loadApi } from '../../src/grpc/schema.ts';
import type { BlockNodeInfo } from '../../src/qmp/protocol.ts';
import { namesFor } from '../../src/volume/model/names.ts';
import { sourceOfPath } from '../../src/volume/source/of-path.ts';
import { SOURCES, moduleByMessageName, moduleOf, type SourceSpec } from '../../src/volume/source/registry.ts';
import { BASE_SPEC } from '../support/base-spec.ts';

/** What every kind of source has to keep to, so that the registry can hand it to whoever asks. */

const NAMES = namesFor('v', 1);

/** One of each kind, resolved, and the file of its protocol node as QEMU lists it. tsc asks for those that lack. */
const SAMPLES: Readonly<Record<SourceSpec['kind'], { readonly source: SourceSpec; readonly file: string }>> = {
  'raw-file': { source: { kind: 'raw-file', path: '/v/a.raw' }, file: '/v/a.raw' },
  'qcow2-file': { source: { kind: 'qcow2-file', path: '/v/a.qcow2' }, file: '/v/a.qcow2' },
  'block-device': { source: { kind: 'block-device', path: '/dev/loop0' }, file: '/dev/loop0' },
  nbd: {
    source: {
      kind: 'nbd',
      server: { type: 'inet', host: 'storage.example', port: 10_809 },
      exportName: 'disk',
      reconnectDelayS: 0,
      tls: undefined,
    },
    file: 'nbd://storage.example:10809/disk',
  },
};
const samples = Object.values(SAMPLES);

/** The members of the API's choice of a source, as the proto file spells them. */
function sourcesOfTheApi(): readonly string[] {
  const proto = readFileSync(join(PROTO_DIR, 'qshim/v1/volumes.proto'), 'utf8');
  const [, message = ''] = /^message VolumeSpec \{$(.*?)^\}$/ms.exec(proto) ?? [];
  const [, members = ''] = /^ {2}oneof source \{$(.*?)^ {2}\}$/ms.exec(message) ?? [];
  return [...members.matchAll(/^ +\w+ (\w+) = \d+;$/gm)].map(([, name = '']) => name);
}

function node(name: string, drv: string, file: string): BlockNodeInfo {
  return {
    ...{ 'node-name': name, drv, file, ro: false, encrypted: false },
    cache: { writeback: true, direct: false, 'no-flush': false },
    image: { filename: file, format: drv, 'virtual-size': 1 },
  };
}

it('a path of this host is a block device or a file by what is there, not by its name', () => {
  assert.deepEqual(sourceOfPath('/v/link', false), { kind: 'raw-file', path: '/v/link' });
  assert.deepEqual(sourceOfPath('/v/link', true), { kind: 'block-device', path: '/v/link' });
});

describe('the registry of sources', () => {
  it('has a module for each source of the API, and no other', () => {
    const members = sourcesOfTheApi();
    assert.ok(members.includes('raw_file'), 'the proto file was understood');
    assert.deepEqual(SOURCES.map(({ apiName }) => apiName).sort(), [...members].sort());
  });

  for (const module of SOURCES) {
    it(`${module.kind}: its message arrives under the name that it says, and gives the module back`, () => {
      const { requestSerialize, requestDeserialize } = loadApi().qshim.v1.Volumes.service.Attach;
      const { source } = SAMPLES[module.kind];
      const spec = { [module.messageName]: module.toMessage(source) };
      const arrived = requestDeserialize(requestSerialize({ sandboxId: 's', volumeId: 'v', spec })).spec;
      assert.equal(arrived?.source, module.messageName);
      assert.equal(moduleByMessageName(module.messageName), module);
      assert.equal(moduleOf(source), module);
      const message: unknown = Object.entries(arrived).find(([name]) => name === module.messageName)?.[1];
      assert.ok(typeof message === 'object' && message !== null);
      assert.deepEqual(module.fromMessage(message), source);
    });
  }

  it('gives each kind, name and option of the command to one module only', () => {
    for (const name of [
      SOURCES.map(({ kind }) => kind),
      SOURCES.map(({ apiName }) => apiName),
      SOURCES.map(({ messageName }) => messageName),
      SOURCES.map(({ command }) => command.option),
    ])
      assert.deepEqual([...new Set<string>(name)], name);
  });

  for (const { source, file } of samples) {
    it(`${source.kind}: no other module takes its journal entry, or its nodes in QEMU, for its own`, () => {
      const module = moduleOf(source);
      const takers = SOURCES.filter(({ schema }) => schema.safeParse(source).success);
      assert.deepEqual(
        takers.map(({ kind }) => kind),
        [source.kind],
      );
      const { driver } = module.protocol(source, NAMES, BASE_SPEC, module.aioModes(BASE_SPEC, true)[0], undefined);
      // A LUKS image has a node of another driver at the top.
      for (const top of module.carriesHostLuks ? [module.format.driver, 'luks'] : [module.format.driver]) {
        const seen = { root: node(NAMES.root, top, file), protocol: node(NAMES.protocol, driver, file), objects: [] };
        const found = SOURCES.map((each) => each.recognise(seen)).filter((each) => each !== undefined);
        assert.deepEqual(found, [source], `${top} over ${driver}`);
      }
    });
  }
});
