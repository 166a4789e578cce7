import type { Sandbox__Output } from '../../src/grpc/generated/qshim/v1/Sandbox.ts';
import type { Volume__Output } from '../../src/grpc/generated/qshim/v1/Volume.ts';
import { HostLook, lookAtGuest, lookAtQemu, type GuestLook } from './looks.ts';
import { sha256, type Attachment, type SandboxFate, type SandboxModel, type VolumeFile } from './model.ts';
import type { DaemonView, Rig } from './rig.ts';

/** Something that is not as it must be. */
export interface Problem {
  readonly kind: 'lost' | 'leaked' | 'wrong state' | 'VM harmed' | 'wrong bytes' | 'wrong answer';
  readonly text: string;
}

/**
 * Holds against each other: what the harness expects, what the daemon says, what QEMU has, what the guest sees, and
 * what lies in the files. Uncertain expectations are settled by what the daemon says, which must then agree with all
 * the rest.
 */
export class Oracle {
  readonly #rig: Rig;
  readonly #sandboxes: readonly SandboxModel[];
  readonly #files: readonly VolumeFile[];
  readonly #host: HostLook;

  constructor(rig: Rig, sandboxes: readonly SandboxModel[], files: readonly VolumeFile[]) {
    this.#rig = rig;
    this.#sandboxes = sandboxes;
    this.#files = files;
    this.#host = new HostLook(rig.temporaryDirectory);
  }

  /** @param view of a daemon that has settled */
  async check(view: DaemonView): Promise<readonly Problem[]> {
    const problems: Problem[] = [];
    const known = new Set(this.#sandboxes.map(({ id }) => id));
    for (const { sandboxId } of view.sandboxes) {
      if (!known.has(sandboxId)) problems.push({ kind: 'leaked', text: `sandbox ${sandboxId} was never asked for` });
    }
    const each = await Promise.all(this.#sandboxes.map((model) => this.#checkSandbox(model, view)));
    problems.push(...each.flat());
    problems.push(...(await this.#checkProcesses(view)));
    const attached = new Set(this.#sandboxes.flatMap((model) => attachedIn(model).map(({ file }) => file.id)));
    const idle = this.#files.filter(({ id }) => !attached.has(id));
    problems.push(...(await Promise.all(idle.map((file) => this.#checkFile(file)))).flat());
    return problems;
  }

  async #checkSandbox(model: SandboxModel, view: DaemonView): Promise<readonly Problem[]> {
    const sandbox = view.sandboxes.find(({ sandboxId }) => sandboxId === model.id);
    const volumes = view.volumes.filter(({ sandboxId }) => sandboxId === model.id);
    const problems = settleFate(model, sandbox);
    if (problems.length > 0) return problems;
    problems.push(...settleVolumes(model, volumes));
    if (sandbox === undefined || !model.runs) return problems;
    const attached = volumes.filter(({ state }) => state === 'VOLUME_STATE_ATTACHED');
    try {
      problems.push(...(await checkQemu(model, sandbox, attached)));
      const hashed = attachedIn(model).filter(({ file }) => file.mountPoint === undefined);
      const guest = await lookAtGuest(
        this.#rig.client,
        model.id,
        hashed.map(({ file }) => file.id),
      );
      problems.push(...checkGuest(model, attached, guest));
    } catch (error) {
      problems.push({ kind: 'VM harmed', text: `${model.id} cannot be looked at: ${String(error)}` });
    }
    return problems;
  }

  async #checkProcesses(view: DaemonView): Promise<readonly Problem[]> {
    const expected = new Set(view.sandboxes.map(({ qemuPid }) => qemuPid).filter((pid) => pid !== 0));
    const real = await this.#rig.qemuPids();
    return [
      ...real
        .filter((pid) => !expected.has(pid))
        .map((pid): Problem => {
          return { kind: 'leaked', text: `QEMU process ${pid} belongs to no sandbox` };
        }),
      ...[...expected]
        .filter((pid) => !real.includes(pid))
        .map((pid): Problem => {
          return { kind: 'wrong state', text: `the daemon names QEMU process ${pid}, which does not exist` };
        }),
    ];
  }

  async #checkFile(file: VolumeFile): Promise<readonly Problem[]> {
    if (file.mountPoint === undefined) {
      const same = (await this.#host.disk(file)) === sha256(file.mirror);
      return same ? [] : [{ kind: 'wrong bytes', text: `${file.path} on the host is not what was written` }];
    }
    if (!file.unmounted) return [];
    const found = await this.#host.files(file);
    return [...file.files]
      .filter(([name, hash]) => found.get(name) !== hash)
      .map(([name]) => ({ kind: 'wrong bytes', text: `${name} in ${file.path} on the host is not what was written` }));
  }
}

export function attachedIn(model: SandboxModel): readonly Attachment[] {
  return [...model.attachments.values()].filter(({ expected }) => expected.has('attached'));
}

function settleFate(model: SandboxModel, sandbox: Sandbox__Output | undefined): Problem[] {
  const fates: Readonly<Record<string, SandboxFate>> = {
    SANDBOX_STATE_RUNNING: 'running',
    SANDBOX_STATE_STOPPED: 'stopped',
  };
  const fate = sandbox === undefined ? 'absent' : fates[sandbox.state];
  if (fate === undefined || !model.expected.has(fate)) {
    const said = sandbox === undefined ? 'absent' : `${sandbox.state} (${sandbox.cause?.message ?? 'no cause'})`;
    const harmed = model.runs || fate === 'stopped';
    const text = `sandbox ${model.id} must be ${[...model.expected].join(' or ')}, and is ${said}`;
    return [{ kind: harmed ? 'VM harmed' : 'wrong state', text }];
  }
  if (fate !== 'running' && !(model.expected.size === 1)) model.vmEnds([fate]);
  model.expected = new Set([fate]);
  if (fate === 'absent') model.attachments.clear();
  return [];
}

/** Settles what was uncertain by what the daemon says, and tells where it contradicts what is certain. */
function settleVolumes(model: SandboxModel, volumes: readonly Volume__Output[]): Problem[] {
  const problems: Problem[] = [];
  const said = new Map(volumes.map((volume) => [volume.volumeId, volume]));
  for (const { file, expected } of model.attachments.values()) {
    const volume = said.get(file.id);
    const state = volume?.state === 'VOLUME_STATE_ATTACHED' ? 'attached' : 'removed';
    if (expected.has(state)) continue;
    const text = `${model.id}/${file.id} must be ${[...expected].join(' or ')}, the daemon says ${volume?.state ?? 'nothing'} (${volume?.cause?.reason ?? ''}: ${volume?.cause?.message ?? ''})`;
    problems.push({ kind: state === 'removed' ? 'lost' : 'wrong state', text });
  }
  for (const volume of volumes) {
    const attached = volume.state === 'VOLUME_STATE_ATTACHED';
    const attachment = model.attachments.get(volume.volumeId);
    if (attachment !== undefined) attachment.expected = new Set([attached ? 'attached' : 'removed']);
    if (attached && attachment === undefined) {
      problems.push({
        kind: 'wrong state',
        text: `${model.id}/${volume.volumeId} is ATTACHED, which nobody asked for`,
      });
    }
    if (attached && attachment !== undefined && attachment.readOnly !== volume.spec?.readOnly) {
      problems.push({
        kind: 'wrong state',
        text: `${model.id}/${volume.volumeId} has not the spec that was asked for`,
      });
    }
  }
  for (const attachment of model.attachments.values()) {
    if (!said.has(attachment.file.id)) attachment.expected = new Set(['removed']);
  }
  return problems;
}

async function checkQemu(
  model: SandboxModel,
  sandbox: Sandbox__Output,
  attached: readonly Volume__Output[],
): Promise<readonly Problem[]> {
  const problems: Problem[] = [];
  const qemu = await lookAtQemu(sandbox.stateDir);
  const devices = attached.map(({ volumeId, generation }) => `vol-${generation}-${volumeId}`);
  const nodes = attached.flatMap(({ generation }) => [`vol-${generation}-fmt`, `vol-${generation}-file`]);
  for (const [what, real, said] of [
    ['device', qemu.devices, devices],
    ['block node', qemu.nodes, nodes],
  ] as const) {
    for (const name of real.filter((one) => !said.includes(one))) {
      problems.push({ kind: 'leaked', text: `${what} ${name} in QEMU of ${model.id} belongs to no ATTACHED volume` });
    }
    for (const name of said.filter((one) => !real.includes(one))) {
      problems.push({
        kind: 'wrong state',
        text: `${what} ${name} of an ATTACHED volume is not in QEMU of ${model.id}`,
      });
    }
  }
  for (const name of qemu.fdSets.filter(
    (one) => !attached.some(({ generation }) => one === `vol-${generation}-fdset`),
  )) {
    problems.push({ kind: 'leaked', text: `descriptors ${name} in QEMU of ${model.id} belong to no ATTACHED volume` });
  }
  model.baseline ??= qemu.baseline;
  if (qemu.baseline !== model.baseline) {
    problems.push({ kind: 'leaked', text: `${model.id} had ${model.baseline} and has ${qemu.baseline}` });
  }
  if (qemu.status !== 'running') problems.push({ kind: 'VM harmed', text: `${model.id} is ${qemu.status}` });
  model.pid ??= sandbox.qemuPid;
  if (sandbox.qemuPid !== model.pid) {
    problems.push({ kind: 'VM harmed', text: `${model.id} was pid ${model.pid} and is pid ${sandbox.qemuPid}` });
  }
  if (sandbox.volumesInUse !== attached.length) {
    problems.push({
      kind: 'leaked',
      text: `${model.id} says ${sandbox.volumesInUse} slots in use for ${attached.length} volumes`,
    });
  }
  return problems;
}

function checkGuest(model: SandboxModel, attached: readonly Volume__Output[], guest: GuestLook): readonly Problem[] {
  const problems: Problem[] = [];
  model.bootId ??= guest.bootId;
  if (guest.bootId !== model.bootId)
    problems.push({ kind: 'VM harmed', text: `the guest of ${model.id} has rebooted` });
  const serials = attached.map(({ serial }) => serial);
  for (const serial of [...guest.disks.keys()].filter((one) => !serials.includes(one))) {
    problems.push({
      kind: 'leaked',
      text: `the guest of ${model.id} has disk ${serial}, the daemon has no such volume`,
    });
  }
  for (const volume of attached) {
    const disk = guest.disks.get(volume.serial);
    const where = `${model.id}/${volume.volumeId}`;
    if (disk === undefined) {
      problems.push({ kind: 'wrong state', text: `${where} is ATTACHED, but the guest has no such disk` });
      continue;
    }
    if (disk.readOnly !== volume.spec?.readOnly) {
      problems.push({
        kind: 'wrong state',
        text: `${where}: the guest's disk is ${disk.readOnly ? 'read-only' : 'writable'}`,
      });
    }
    const attachment = model.attachments.get(volume.volumeId);
    if (attachment === undefined) continue;
    // A detach that came to its end half-way says so, and that it is mounted it says no more.
    if (volume.cause !== null && !volume.evidence.includes('guest-mount')) attachment.mounted = false;
    // The guest's own names may have changed with a reboot since the daemon was told.
    if (attachment.file.mountPoint === undefined && disk.sha256 !== sha256(attachment.file.mirror)) {
      problems.push({ kind: 'wrong bytes', text: `${where} in the guest is not what was written` });
    }
    problems.push(...checkMount(where, attachment, disk.name, guest));
  }
  return problems;
}

function checkMount(where: string, { file, mounted }: Attachment, name: string, guest: GuestLook): readonly Problem[] {
  if (file.mountPoint === undefined || !mounted) return [];
  if (guest.mounts.get(name) !== file.mountPoint) {
    const seen = guest.mounts.get(name) ?? 'nowhere';
    return [{ kind: 'wrong state', text: `${where} must be mounted at ${file.mountPoint}, and is mounted at ${seen}` }];
  }
  return [...file.files]
    .filter(([path, hash]) => guest.files.get(`${file.mountPoint ?? ''}/${path}`) !== hash)
    .map(([path]) => ({ kind: 'wrong bytes', text: `${where}: ${path} in the guest is not what was written` }));
}
