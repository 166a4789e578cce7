import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { laterMajor, upgraded, versionMembers, type Format, type Upgrade } from '../../src/base/versions.ts';

/** The rules of versions of files, on a format that has had more of them than any real one. */

const step = (to: number): Upgrade => ({ to, upgrade: (file) => ({ [`since${to}`]: `added by ${to}`, ...file }) });
const format: Format = { major: 3, upgrades: [0, 1, 2].map(step) };
const members = (...minors: readonly number[]): object =>
  Object.fromEntries(minors.map((minor) => [`since${minor}`, `added by ${minor}`]));

describe('versions of files', () => {
  for (const [minor, missing] of [
    [undefined, [0, 1, 2]],
    [0, [1, 2]],
    [1, [2]],
    [2, []],
  ] as const) {
    it(`minor ${minor ?? 'none'} comes up by the upgrades after it`, () => {
      const file = { version: 3, x: 1, ...(minor === undefined ? {} : { minor }) };
      assert.deepEqual(upgraded(file, format), { file: { version: 3, x: 1, ...members(...missing) }, later: false });
    });
  }

  it('a later minor is taken as it is, and told to be later', () => {
    assert.deepEqual(upgraded({ version: 3, minor: 9, y: 2 }, format), { file: { version: 3, y: 2 }, later: true });
  });

  it('members that an older daemon has kept are not made anew by the upgrades', () => {
    const { file } = upgraded({ version: 3, since1: 'kept' }, format);
    assert.equal(file['since1'], 'kept');
  });

  it("what is written says this daemon's version; minor 0 is not written, for daemons that know of no minors", () => {
    assert.deepEqual(versionMembers(format), { version: 3, minor: 2 });
    assert.deepEqual(versionMembers({ major: 1, upgrades: [step(0)] }), { version: 1 });
    assert.deepEqual(versionMembers({ major: 1, upgrades: [] }), { version: 1 });
  });

  it('a later major is told from everything that is no version', () => {
    assert.equal(laterMajor({ version: 4 }, format), 4);
    for (const other of [{ version: 3 }, { version: 2 }, { version: '4' }, { version: 4.5 }, {}, [], null, 4])
      assert.equal(laterMajor(other, format), undefined, JSON.stringify(other));
  });

  it('what says of itself that it is something else is refused', () => {
    for (const other of [{ version: 2 }, { version: 4 }, {}, [], null, 'x'])
      assert.throws(() => upgraded(other, format), /not a file of version 3/, JSON.stringify(other));
    for (const minor of [-1, 0.5, '1', null])
      assert.throws(() => upgraded({ version: 3, minor }, format), /its minor is no version/, String(minor));
  });
});
