import assert from 'node:assert/strict';
import { glob, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const ROOT = join(import.meta.dirname, '../..');
const DIGEST = /^[a-z0-9./-]+:[a-z0-9.-]+@sha256:[0-9a-f]{64}$/;

async function workflows(): Promise<ReadonlyMap<string, string>> {
  const found = new Map<string, string>();
  for await (const name of glob('.github/workflows/*', { cwd: ROOT })) {
    found.set(name, await readFile(join(ROOT, name), 'utf8'));
  }
  assert.ok(found.size >= 2);
  return found;
}

/** The scripts of all `run:` steps, without their indentation. */
function scriptsOf(workflow: string): readonly string[] {
  const lines = workflow.split('\n');
  return lines.flatMap((line, at) => {
    const [, indent = '', rest = ''] = /^( *(?:- )?)run: *(.*)$/.exec(line) ?? [];
    if (rest === '') return [];
    if (!/^[|>]/.test(rest)) return [rest];
    const after = lines.slice(at + 1);
    const end = after.findIndex((next) => next.trim() !== '' && next.search(/\S/) <= indent.length);
    return [after.slice(0, end === -1 ? undefined : end).join('\n')];
  });
}

describe('workflows', () => {
  it('pin every action by its commit, and say which version that is', async () => {
    for (const [name, text] of await workflows()) {
      const uses = [...text.matchAll(/^ *(?:- )?uses: *(.*)$/gm)].map(([, value = '']) => value);
      assert.ok(uses.length > 0, name);
      for (const use of uses) assert.match(use, /^[a-z-]+\/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/, name);
    }
  });

  it('pin every image by its digest', async () => {
    for (const [name, text] of await workflows()) {
      for (const [, image = ''] of text.matchAll(/^ *image: *(\S+)/gm)) assert.match(image, DIGEST, name);
    }
  });

  it('give a token that reads contents, and only the release may sign', async () => {
    for (const [name, text] of await workflows()) {
      assert.match(text, /^permissions:\n {2}contents: read\n(?! )/m, name);
      const writes = [...text.matchAll(/^ *([a-z-]+): *write\b/gm)].map(([, scope]) => scope);
      assert.deepEqual(writes, name.endsWith('/release.yml') ? ['id-token', 'attestations'] : [], name);
      assert.doesNotMatch(text, /write-all|read-all/, name);
    }
  });

  it('paste nothing into a script that somebody else may have written', async () => {
    for (const [name, text] of await workflows()) {
      const scripts = scriptsOf(text);
      assert.ok(scripts.length > 0, name);
      for (const script of scripts) assert.doesNotMatch(script, /\$\{\{/, name);
      assert.doesNotMatch(text, /pull_request_target|workflow_run|issue_comment/, name);
      assert.doesNotMatch(text, /github\.(event\.|head_ref)|secrets\./, name);
    }
  });

  it('leave no token beside the code that they run', async () => {
    for (const [name, text] of await workflows()) {
      const checkouts = text.match(/uses: actions\/checkout@/g)?.length ?? 0;
      assert.equal(text.match(/persist-credentials: false/g)?.length ?? 0, checkouts, name);
    }
  });
});

interface Instruction {
  readonly word: string;
  readonly rest: string;
}

/** The instructions of each stage, in order; a line that ends with a backslash goes on in the next. */
async function stages(): Promise<readonly (readonly Instruction[])[]> {
  const text = await readFile(join(ROOT, 'Dockerfile'), 'utf8');
  const lines = text
    .replaceAll(/^ *#.*\n/gm, '')
    .replaceAll(/\\\n */g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '');
  const found: Instruction[][] = [];
  for (const line of lines) {
    const [, word = '', rest = ''] = /^([A-Z]+) +(.*)$/.exec(line) ?? assert.fail(line);
    if (word === 'FROM') found.push([]);
    found.at(-1)?.push({ word, rest });
  }
  return found;
}

/** The one value of an instruction in a stage. */
function only(stage: readonly Instruction[], word: string): string {
  const values = stage.filter((instruction) => instruction.word === word).map(({ rest }) => rest);
  assert.equal(values.length, 1, `${word} stands once`);
  return values[0] ?? '';
}

/** The words of an instruction that is no shell command. */
function words(json: string): readonly string[] {
  const parsed: unknown = JSON.parse(json);
  assert.ok(Array.isArray(parsed) && parsed.every((word) => typeof word === 'string'));
  return parsed;
}

describe('Dockerfile', () => {
  it('takes every base by its digest, and the same one', async () => {
    const bases = (await stages()).map((stage) => only(stage, 'FROM').split(' ')[0] ?? '');
    assert.equal(new Set(bases).size, 1);
    for (const base of bases) assert.match(base, DIGEST);
  });

  it('ends as a user that is not root, and whose number is fixed', async () => {
    const last = (await stages()).at(-1) ?? [];
    assert.match(only(last, 'USER'), /^[1-9]\d{4}:[1-9]\d{4}$/);
    const after = last.slice(last.findIndex(({ word }) => word === 'USER') + 1).map(({ word }) => word);
    assert.deepEqual(after, ['HEALTHCHECK', 'ENTRYPOINT']);
    for (const { word, rest } of last) if (word === 'COPY') assert.doesNotMatch(rest, /--chown|--chmod/);
  });

  it('asks the daemon for its health, without a shell', async () => {
    const last = (await stages()).at(-1) ?? [];
    const [, options = '', command = ''] = /^(.*) CMD (\[.*\])$/.exec(only(last, 'HEALTHCHECK')) ?? [];
    for (const option of ['interval', 'timeout', 'start-period', 'retries'])
      assert.match(options, RegExp(`--${option}=`));
    assert.deepEqual(words(command), ['/app/bin/qshim', 'health']);
    assert.deepEqual(words(only(last, 'ENTRYPOINT')), ['/app/bin/qshimd']);
  });

  it('copies what is there, and fetches only through apt and npm ci', async () => {
    for (const stage of await stages()) {
      for (const { word, rest } of stage) {
        assert.notEqual(word, 'ADD');
        assert.doesNotMatch(rest, /\b(curl|wget|sudo|npm install|npx)\b|https?:/);
        if (word !== 'RUN') continue;
        for (const [install] of rest.matchAll(/apt-get install[^&]*/g))
          assert.match(install, /--no-install-recommends/);
      }
    }
    const copied = ((await stages()).at(-1) ?? []).flatMap(({ word, rest }) =>
      word === 'COPY' ? (/ \/app\/(\S+) /.exec(rest)?.[1] ?? []) : [],
    );
    // Made by the build itself.
    for (const path of copied.filter((name) => name !== 'build')) await stat(join(ROOT, path));
    assert.ok(copied.includes('src') && copied.includes('proto') && copied.includes('node_modules'));
  });

  it('does not send what git or a build leaves behind to the builder', async () => {
    const ignored = (await readFile(join(ROOT, '.dockerignore'), 'utf8')).split('\n');
    for (const name of ['.git', 'build', 'node_modules']) assert.ok(ignored.includes(name), name);
  });
});
