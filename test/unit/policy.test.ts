import assert from 'node:assert/strict';
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ShimError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/log.ts';
import { CONTAINERD, type Identity } from '../../src/callers/identity.ts';
import { PolicyFile, readPolicy } from '../../src/callers/policy-file.ts';
import { Policy, refusedKey, refusedRoot, type Grant, type Names, type Role } from '../../src/callers/policy.ts';
import { shimFailure } from '../support/agent-pair.ts';
import { until } from '../support/until.ts';

const names: Names = {
  user: (name) => (name === 'deploy' ? Promise.resolve(1000) : Promise.reject(new Error(`no user ${name}`))),
  group: (name) => (name === 'ops' ? Promise.resolve(50) : Promise.reject(new Error(`no group ${name}`))),
};

const POLICY = `
[[rule]]
name = "operators"
groups = ["ops"]
roles = ["admin"]

[[rule]]
name = "tenant a"
users = ["deploy", 1001]
certificates = ["a.example"]
roles = ["volume", "exec"]
sandboxes = { tenant = "a" }
roots = ["/srv/a", "nbd:store"]
keys = ["file:/etc/keys/a/*", "command:kms-a"]

[[rule]]
users = [1001]
roles = ["volume"]
sandboxes = { tenant = "b" }
`;

const user = (uid: number, ...groups: readonly number[]): Identity => ({ kind: 'user', uid, groups, pid: 1 });
const DEPLOY = user(1000, 1000);

/** The reason of a refusal, or the names of the rules that grant. */
function decision(policy: Policy, identity: Identity, role: Role, labels?: Record<string, string>): string {
  const given = policy.grant(identity, role, labels, 'Some.Method');
  return given instanceof ShimError ? given.reason : given.rules.join(', ');
}

function granted(policy: Policy, identity: Identity, role: Role, labels?: Record<string, string>): Grant {
  const given = policy.grant(identity, role, labels, 'Some.Method');
  assert.ok(!(given instanceof ShimError));
  return given;
}

describe('a policy', () => {
  it('gives roles to users, groups and certificates, for sandboxes by their labels', async () => {
    const policy = await Policy.parse(POLICY, names);
    for (const [identity, role, labels, expected] of [
      [user(7, 7, 50), 'admin', {}, 'operators'],
      [user(7, 50), 'read', { tenant: 'a' }, 'operators'],
      [user(0, 0), 'read', {}, 'CALLER_NOT_NAMED'],
      [DEPLOY, 'volume', { tenant: 'a', more: 'x' }, 'tenant a'],
      [DEPLOY, 'exec', { tenant: 'a' }, 'tenant a'],
      [DEPLOY, 'read', { tenant: 'a' }, 'tenant a'],
      [DEPLOY, 'read', { tenant: 'b' }, 'SANDBOX_NOT_GRANTED'],
      [DEPLOY, 'read', {}, 'SANDBOX_NOT_GRANTED'],
      [DEPLOY, 'admin', { tenant: 'a' }, 'ROLE_MISSING'],
      // Of no sandbox that is there.
      [DEPLOY, 'volume', undefined, 'tenant a'],
      [user(1001), 'volume', { tenant: 'b' }, 'number 3'],
      [user(1001), 'exec', { tenant: 'b' }, 'SANDBOX_NOT_GRANTED'],
      [{ kind: 'certificate', names: ['x', 'a.example'] }, 'exec', { tenant: 'a' }, 'tenant a'],
      [{ kind: 'certificate', names: ['b.example'] }, 'read', { tenant: 'a' }, 'CALLER_NOT_NAMED'],
      // A certificate of the name of a user is no user.
      [{ kind: 'certificate', names: ['deploy'] }, 'read', { tenant: 'a' }, 'CALLER_NOT_NAMED'],
      [CONTAINERD, 'admin', {}, ''],
    ] as const) {
      assert.equal(decision(policy, identity, role, labels), expected, JSON.stringify([identity, role, labels]));
    }
    assert.ok(policy.hasAdmin);
    assert.equal(decision(Policy.open, user(1), 'admin', {}), '');
  });

  it('a label is one of its own: what every object has is none', async () => {
    const policy = await Policy.parse(
      '[[rule]]\nusers = [1]\nroles = ["read"]\nsandboxes = { constructor = "x" }',
      names,
    );
    assert.equal(decision(policy, user(1), 'read', {}), 'SANDBOX_NOT_GRANTED');
  });

  it('limits roots and keys to those of the rules that fit, and a rule without limits limits nothing', async () => {
    const policy = await Policy.parse(POLICY, names);
    const a = granted(policy, DEPLOY, 'volume', { tenant: 'a' });
    for (const [source, reason] of [
      ['/srv/a/disk', undefined],
      ['/srv/a', undefined],
      ['/srv/ab', 'ROOT_NOT_GRANTED'],
      ['/srv/b/disk', 'ROOT_NOT_GRANTED'],
      ['nbd:store', undefined],
      ['nbd:other', 'ROOT_NOT_GRANTED'],
    ] as const) {
      assert.equal(refusedRoot(a, source)?.reason, reason, source);
    }
    for (const [key, reason] of [
      ['file:/etc/keys/a/1', undefined],
      ['file:/etc/keys/b/1', 'KEY_NOT_GRANTED'],
      ['command:kms-a', undefined],
      ['command:kms-ab', 'KEY_NOT_GRANTED'],
    ] as const) {
      assert.equal(refusedKey(a, key)?.reason, reason, key);
    }
    assert.match(refusedRoot(a, '/x')?.message ?? '', /rule tenant a\): \/srv\/a, nbd:store$/);
    assert.match(refusedKey(a, 'x:y')?.message ?? '', /rule tenant a\)/);
    const b = granted(policy, user(1001), 'volume', { tenant: 'b' });
    assert.deepEqual([b.roots, b.keys, refusedRoot(b, '/anything')], [undefined, undefined, undefined]);
  });

  it('a denial names the rule that was missed', async () => {
    const policy = await Policy.parse(POLICY, names);
    for (const [identity, role, labels, text] of [
      [user(9), 'read', {}, /^Some\.Method: no rule of the policy names uid 9$/],
      [DEPLOY, 'admin', {}, /needs the role admin, .* uid 1000 \(it has rule "tenant a": /],
      [DEPLOY, 'read', { tenant: 'b' }, /for other sandboxes: rule "tenant a": .* to those with tenant=a$/],
    ] as const) {
      const given = policy.grant(identity, role, labels, 'Some.Method');
      assert.ok(given instanceof ShimError && given.code === 'PERMISSION_DENIED');
      assert.match(given.message, text);
      assert.equal(given.metadata['rule'], identity === DEPLOY ? 'tenant a' : undefined);
    }
  });

  it('that says what it cannot say is refused, with where', async () => {
    for (const [text, problem] of [
      ['[[rule]]\nroles = ["read"]', /rule number 1 names neither/],
      ['[[rule]]\nusers = [1]\nroles = ["root"]', /rule 1\.roles\.0: /],
      ['[[rule]]\nusers = [1]\nroles = []', /rule 1\.roles: /],
      ['[[rule]]\nusers = [1]\nroles = ["read"]\nsandbox = { a = "b" }', /rule 1: .*sandbox/],
      ['[[rule]]\nusers = [-1]\nroles = ["read"]', /rule 1\.users\.0: /],
      ['[[rule]]\nusers = ["nobody"]\nroles = ["read"]', /no user nobody/],
      ['[[rule]]\nusers = [1]\nroots = ["srv"]\nroles = ["read"]', /rule 1\.roots\.0: must be an absolute path/],
      ['rule = 3', /expected array/],
      ['', /expected array/],
      ['[[rule]', /Invalid TOML/],
    ] as const) {
      await assert.rejects(Policy.parse(text, names), problem, text);
    }
  });
});

describe('the policy file', () => {
  const withFile = async (act: (path: string) => Promise<void>): Promise<void> => {
    const directory = await mkdtemp(join(tmpdir(), 'qshim-policy-'));
    try {
      await act(join(directory, 'policy.toml'));
    } finally {
      await rm(directory, { recursive: true });
    }
  };
  const rule = (role: string): string => `[[rule]]\nusers = [1, "root"]\nroles = ["${role}"]\n`;

  it('is refused when others may write it, or a root of it is wider than allowed_roots', async () => {
    await withFile(async (path) => {
      await assert.rejects(readPolicy(path, []), shimFailure('INVALID_ARGUMENT', 'INVALID_POLICY'));
      await writeFile(path, rule('read'), { mode: 0o644 });
      assert.equal(decision(await readPolicy(path, []), user(0), 'read'), 'number 1');
      await chmod(path, 0o664);
      await assert.rejects(readPolicy(path, []), /can be written by others \(mode 664\)/);
      await chmod(path, 0o600);
      await writeFile(path, `${rule('read')}roots = ["/srv/a"]`);
      await readPolicy(path, ['/srv']);
      await assert.rejects(readPolicy(path, ['/srv/ab', '/var']), /the root \/srv\/a lies below none/);
    });
  });

  it('is taken up when it changes; one that cannot be used leaves what was in force, and says so', async () => {
    await withFile(async (path) => {
      await writeFile(path, rule('read'));
      await using file = await PolicyFile.open(path, { roots: [], everyMs: 10, log: silentLogger() });
      let changes = 0;
      file.onChange(() => (changes += 1));
      await writeFile(path, rule('nonsense'));
      await until('the problem', () => file.problem);
      assert.equal(decision(file.current, user(1), 'read'), 'number 1');
      assert.equal(changes, 0);
      await writeFile(path, rule('volume'));
      await until('the next one', () => (changes === 1 ? true : undefined));
      assert.equal(decision(file.current, user(1), 'volume'), 'number 1');
      assert.equal(file.problem, undefined);
      await rm(path);
      await until('the problem again', () => file.problem);
      assert.equal(decision(file.current, user(1), 'volume'), 'number 1');
    });
  });
});
