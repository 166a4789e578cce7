import { attach, create, detach, tell, type Answer } from './answers.ts';
import { BLOCK_BYTES, afterAttach, afterDetach, sha256, specOf, type SandboxModel, type VolumeFile } from './model.ts';
import type { Problem } from './oracle.ts';
import type { Rig } from './rig.ts';

/** One thing that a caller asks for. */
export interface VolumeWork {
  readonly kind: 'attach' | 'detach' | 'force-detach' | 'detach-twice';
  readonly sandbox: SandboxModel;
  readonly file: VolumeFile;
  readonly readOnly: boolean;
  /** When the caller gives up; undefined: it waits for the end. */
  readonly patienceMs: number | undefined;
}

/** What memory a soak's guests get; enough for the reference guest. */
const MEMORY_MIB = 192;

/**
 * Asks, and takes note of what the answer allows.
 * @param disturbed a fault or another operation on the sandbox is under way: then a refusal is no problem by itself
 */
export async function perform(
  rig: Rig,
  work: VolumeWork,
  all: readonly SandboxModel[],
  disturbed: boolean,
): Promise<readonly Problem[]> {
  const { kind, sandbox, file, readOnly, patienceMs } = work;
  const { client } = rig;
  const expected = disturbed || patienceMs !== undefined ? undefined : expectedCodes(work, all);
  const ids = { sandboxId: sandbox.id, volumeId: file.id };
  if (kind === 'attach') {
    const answer = await attach(client, { ...ids, spec: specOf(file, readOnly) }, patienceMs);
    afterAttach(sandbox, file, readOnly, answer);
    if (file.mountPoint !== undefined && answer.kind === 'ok' && !answer.value.evidence.includes('guest-mount')) {
      return [{ kind: 'wrong answer', text: `attach ${sandbox.id}/${file.id} answered OK, and nobody saw it mounted` }];
    }
    return judge(work, answer, 'VOLUME_STATE_ATTACHED', expected);
  }
  const force = kind === 'force-detach';
  const count = kind === 'detach-twice' ? 2 : 1;
  const answers = await Promise.all(Array.from({ length: count }, () => detach(client, { ...ids, force }, patienceMs)));
  const best = answers.find(({ kind: how }) => how === 'ok') ?? answers.find(({ kind: how }) => how === 'unknown');
  for (const answer of best === undefined ? answers.slice(0, 1) : [best]) afterDetach(sandbox, file, force, answer);
  return answers.flatMap((answer) => judge(work, answer, 'VOLUME_STATE_REMOVED', expected));
}

/** The answers that are right when nothing else happens; by what the model knows before the call. */
function expectedCodes(work: VolumeWork, all: readonly SandboxModel[]): readonly string[] {
  const { kind, sandbox, file, readOnly } = work;
  const attached = sandbox.isAttached(file);
  if (sandbox.expected.has('absent')) return ['NOT_FOUND'];
  if (kind !== 'attach') return attached ? ['OK'] : ['OK', 'NOT_FOUND'];
  if (!sandbox.runs) return ['FAILED_PRECONDITION'];
  if (attached && sandbox.attachments.get(file.id)?.readOnly !== readOnly) return ['ALREADY_EXISTS'];
  // A reset, or a detach that was refused half-way, may have taken its mount; then a repeat is no success (see judge).
  if (attached) return file.mountPoint === undefined ? ['OK'] : ['OK', 'FAILED_PRECONDITION'];
  const conflict = all.some((other) => {
    const held = other === sandbox || !other.isAttached(file) ? undefined : other.attachments.get(file.id);
    return held !== undefined && !(held.readOnly && readOnly);
  });
  return conflict ? ['FAILED_PRECONDITION'] : ['OK'];
}

function judge(
  work: VolumeWork,
  answer: Answer<{ readonly state: string }>,
  state: string,
  expected: readonly string[] | undefined,
): readonly Problem[] {
  const what = `${work.kind} ${work.sandbox.id}/${work.file.id}`;
  if (answer.kind === 'ok' && answer.value.state !== state) {
    return [{ kind: 'wrong answer', text: `${what} answered OK with ${answer.value.state}` }];
  }
  const code = answer.kind === 'ok' ? 'OK' : answer.code;
  if (code === 'INTERNAL' || (expected !== undefined && !expected.includes(code))) {
    const wanted = expected?.join(' or ') ?? 'anything but INTERNAL';
    return [{ kind: 'wrong answer', text: `${what} must answer ${wanted}, and answered ${tell(answer)}` }];
  }
  return [];
}

/** Creates a sandbox, or asks for it again; the guest's next boot_id is taken as it comes. */
export async function performCreate(
  rig: Rig,
  sandbox: SandboxModel,
  volumeCapacity: number,
  disturbed: boolean,
): Promise<readonly Problem[]> {
  const before = sandbox.expected;
  const answer = await create(rig.client, {
    sandboxId: sandbox.id,
    spec: { memoryMib: MEMORY_MIB, volumeCapacity, labels: { soak: 'yes' } },
  });
  if (!before.has('absent')) {
    // A repeat: answered as the first time, also about one that has stopped.
    const right = answer.kind === 'ok' || disturbed;
    return right ? [] : [{ kind: 'wrong answer', text: `repeated create of ${sandbox.id}: ${tell(answer)}` }];
  }
  if (answer.kind === 'ok') sandbox.expected = new Set(['running']);
  else if (answer.kind === 'unknown') sandbox.expected = new Set(['absent', 'running', 'stopped']);
  const right = answer.kind === 'ok' || (disturbed && answer.code !== 'INTERNAL');
  return right ? [] : [{ kind: 'wrong answer', text: `create ${sandbox.id}: ${tell(answer)}` }];
}

/**
 * Writes one block in the guest and to the harness's own copy. Nothing happens when the volume is not there to be
 * written.
 * @param index which block of a plain disk, or which file of a mounted one, is overwritten
 */
export async function writeBlock(
  rig: Rig,
  sandbox: SandboxModel,
  file: VolumeFile,
  index: number,
  bytes: Buffer,
): Promise<readonly Problem[]> {
  const attachment = sandbox.attachments.get(file.id);
  if (!sandbox.runs || attachment === undefined || !sandbox.isAttached(file) || attachment.readOnly) return [];
  const hash = sha256(bytes);
  let seen: string;
  if (file.mountPoint === undefined) {
    const block = index % (file.mirror.length / BLOCK_BYTES);
    const find = `for p in /sys/block/vd*; do read -r s < $p/serial || true; if [ "$s" = ${file.id} ]; then d=/dev/\${p##*/}; fi; done`;
    const put = `dd if=/tmp/${file.id} of=$d bs=${BLOCK_BYTES} seek=${block} conv=notrunc,fsync`;
    const script = `set -e; d=; ${find}; cat > /tmp/${file.id}; ${put}; sha256sum < /tmp/${file.id}; rm /tmp/${file.id}`;
    seen = await rig.client.guest(sandbox.id, script, bytes);
    bytes.copy(file.mirror, block * BLOCK_BYTES);
  } else {
    if (!attachment.mounted) return [];
    const name = `f${index % 8}`;
    const path = `${file.mountPoint}/${name}`;
    seen = await rig.client.guest(sandbox.id, `set -e; cat > ${path}; sync; sha256sum < ${path}`, bytes);
    file.files.set(name, hash);
  }
  if (seen.startsWith(hash)) return [];
  return [{ kind: 'wrong bytes', text: `${sandbox.id}/${file.id}: the guest wrote ${seen.trim()}, not ${hash}` }];
}
