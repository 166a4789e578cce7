import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { checkContract, isAtLeast, type ContractTable } from '../../src/qmp/contract-check.ts';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import type { SchemaInfo } from '../../src/qmp/protocol.ts';
import { schemaOfContract } from '../support/contract-schema.ts';
import { checkDeviceProperties } from '../support/device-properties.ts';

const version = { major: 7, minor: 2, micro: 22 };

/** A command whose argument goes through each kind of type: object, variants, alternate, array. */
const schema: SchemaInfo[] = [
  { name: 'str', 'meta-type': 'builtin' },
  { name: 'add', 'meta-type': 'command', 'arg-type': '1', 'ret-type': '[2]' },
  {
    name: '1',
    'meta-type': 'object',
    members: [{ name: 'driver', type: 'str' }],
    variants: [
      { case: 'raw', type: '3' },
      { case: 'other', type: '4' },
    ],
  },
  { name: '[2]', 'meta-type': 'array', 'element-type': '2' },
  { name: '2', 'meta-type': 'object', members: [{ name: 'id', type: 'str' }] },
  { name: '3', 'meta-type': 'object', members: [{ name: 'file', type: '5' }] },
  { name: '4', 'meta-type': 'object', members: [{ name: 'elsewhere', type: 'str' }] },
  { name: '5', 'meta-type': 'alternate', members: [{ type: 'str' }, { type: '2' }] },
  { name: 'GONE', 'meta-type': 'event', 'arg-type': '2' },
];

const seed = (parts: Partial<ContractTable['commands'][string]>): ContractTable => ({
  commands: { add: { arguments: {}, returns: {}, ...parts } },
  events: {},
});

describe('qmp contract check', () => {
  it('finds nothing where all is there', () => {
    const good: ContractTable = {
      commands: {
        add: { arguments: { driver: true, file: { id: true } }, returns: { id: true }, cases: { raw: true } },
      },
      events: { GONE: { id: true } },
    };
    assert.deepEqual(checkContract(schema, version, good), []);
    assert.deepEqual(checkContract(schemaOfContract(), version), []);
  });

  const seeds: [string, ContractTable, string][] = [
    ['an unknown command', { commands: { nope: { arguments: {}, returns: {} } }, events: {} }, 'nope: command'],
    [
      'an event in place of a command',
      { commands: { GONE: { arguments: {}, returns: {} } }, events: {} },
      'GONE: command',
    ],
    ['an unknown event', { commands: {}, events: { NOPE: {} } }, 'NOPE: event'],
    ['an unknown event member', { commands: {}, events: { GONE: { when: true } } }, 'GONE: member when'],
    ['an unknown argument', seed({ arguments: { dirver: true } }), 'add: argument dirver'],
    ['an unknown nested argument', seed({ arguments: { file: { ix: true } } }), 'add: argument file.ix'],
    [
      'an argument of a variant that is not used',
      seed({ arguments: { elsewhere: true }, cases: { raw: true } }),
      'add: argument elsewhere',
    ],
    [
      'an unknown variant',
      seed({ arguments: { driver: true }, cases: { qcow3: true } }),
      'add: argument variant qcow3',
    ],
    ['an unknown result', seed({ returns: { ids: true } }), 'add: result ids'],
  ];
  for (const [name, contract, finding] of seeds) {
    it(`finds ${name}`, () => {
      assert.deepEqual(checkContract(schema, version, contract), [`${finding} is not in the schema`]);
    });
  }

  it('the variants of a union inside one that is chosen are all searched', () => {
    const address: SchemaInfo[] = [
      ...schema.map((info) =>
        info.name === '3' ? { ...info, members: [...(info.members ?? []), { name: 'server', type: '6' }] } : info,
      ),
      {
        name: '6',
        'meta-type': 'object',
        members: [],
        variants: [
          { case: 'unix', type: '7' },
          { case: 'inet', type: '8' },
        ],
      },
      { name: '7', 'meta-type': 'object', members: [{ name: 'path', type: 'str' }] },
      { name: '8', 'meta-type': 'object', members: [{ name: 'host', type: 'str' }] },
    ];
    const of = (server: Readonly<Record<string, true>>): ContractTable =>
      seed({ arguments: { server }, cases: { raw: true } });
    assert.deepEqual(checkContract(address, version, of({ path: true, host: true })), []);
    assert.deepEqual(checkContract(address, version, of({ port: true })), [
      'add: argument server.port is not in the schema',
    ]);
  });

  it('what is marked with a later version is left out until then', () => {
    const later = seed({ arguments: { header: 'since 9.0' } });
    assert.deepEqual(checkContract(schema, { ...version, major: 8 }, later), []);
    assert.equal(checkContract(schema, { ...version, major: 9, minor: 0 }, later).length, 1);
    assert.equal(checkContract(schema, { ...version, major: 11 }, later).length, 1);
  });

  it('device properties are compared with device-list-properties', () => {
    const { driver, id, bus, ...properties } = QMP_CONTRACT.commands.device_add.arguments;
    assert.deepEqual([driver, id, bus], [true, true, true]);
    const listed = new Set(Object.keys(properties));
    listed.delete('iothread-vq-mapping');
    assert.deepEqual(checkDeviceProperties(listed, version), []);
    listed.delete('serial');
    assert.deepEqual(checkDeviceProperties(listed, { ...version, major: 9 }), [
      'device_add: property serial is not in device-list-properties',
      'device_add: property iothread-vq-mapping is not in device-list-properties',
    ]);
  });

  it('versions compare by number', () => {
    assert.equal(isAtLeast({ major: 10, minor: 0, micro: 0 }, 9, 2), true);
    assert.equal(isAtLeast({ major: 7, minor: 10, micro: 0 }, 7, 2), true);
    assert.equal(isAtLeast({ major: 7, minor: 1, micro: 9 }, 7, 2), false);
  });
});
