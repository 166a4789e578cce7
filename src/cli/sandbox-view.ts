/** Sandboxes as people see them. */
import type { Sandbox__Output as Sandbox } from '../grpc/generated/qshim/v1/Sandbox.ts';
import { visible } from '../base/visible.ts';
import { table } from './table.ts';
import {
  causeText,
  countOrNothing,
  enumWord,
  labelsText,
  NOTHING,
  orNothing,
  timestampOrNothing,
  timingsText,
} from './values.ts';
import { timingsSheet } from './timings-view.ts';

/** Digits of a template's id that people get to see. */
const TEMPLATE_ID_SHOWN = 12;

const state = (sandbox: Sandbox): string => enumWord('SANDBOX_STATE_', sandbox.state);

export function sandboxTable(sandboxes: readonly Sandbox[], widthMax: number | undefined): string {
  const head = ['SANDBOX', 'STATE', 'AGENT', 'VCPUS', 'MEMORY', 'VOLUMES', 'CREATED', 'LABELS', 'CAUSE'];
  const rows = sandboxes.map((sandbox) => [
    visible(sandbox.sandboxId),
    state(sandbox),
    agentWord(sandbox),
    countOrNothing(sandbox.spec?.vcpus ?? 0),
    memoryText(sandbox),
    volumesText(sandbox),
    timestampOrNothing(sandbox.createdAt),
    labelsText(sandbox.spec?.labels ?? {}),
    causeText(sandbox.cause),
  ]);
  return table(head, rows, widthMax);
}

export function sandboxSheet(sandbox: Sandbox, widthMax: number | undefined): string {
  const { spec } = sandbox;
  const rows = [
    ['sandbox', visible(sandbox.sandboxId)],
    ['state', state(sandbox)],
    ['cause', causeText(sandbox.cause)],
    ['guest agent', sandbox.agentReady ? 'ready' : 'not ready'],
    ['run state', sandbox.qemuUnresponsive ? 'unknown: QEMU does not answer' : orNothing(sandbox.runState)],
    ...(sandbox.guestOverBudget === '' ? [] : [['over budget', visible(sandbox.guestOverBudget)]]),
    ['vcpus', countOrNothing(spec?.vcpus ?? 0)],
    ['memory', memoryText(sandbox)],
    ['volumes', volumesText(sandbox)],
    ['capacity', capacityText(sandbox)],
    ['iothreads', countOrNothing(spec?.iothreads ?? 0)],
    ['accelerator', acceleratorText(sandbox)],
    ['start', startText(sandbox)],
    ['QEMU', sandbox.qemuPid === 0 ? orNothing(sandbox.qemuVersion) : qemuText(sandbox)],
    ['confinement', confinementText(sandbox)],
    ['kernel', imageText(spec?.kernel, sandbox.bootImages?.kernel)],
    ['initrd', imageText(spec?.initrd, sandbox.bootImages?.initrd)],
    ['kernel parameters', orNothing(spec?.kernelParameters)],
    ['labels', labelsText(spec?.labels ?? {})],
    ['created', timestampOrNothing(sandbox.createdAt)],
    ['state directory', orNothing(sandbox.stateDir)],
  ];
  return table([], rows, widthMax) + timingsSheet(sandbox.timings);
}

/** One line after create, stop and the like. */
export function sandboxSummary(sandbox: Sandbox): string {
  const parts = [state(sandbox)];
  // A VM whose vCPUs stand still is still a running sandbox.
  if (sandbox.runState !== '' && sandbox.runState !== 'running') parts.push(`run state ${visible(sandbox.runState)}`);
  if (sandbox.agentReady) parts.push('guest agent ready');
  if (sandbox.qemuUnresponsive) parts.push('QEMU does not answer');
  if (sandbox.guestOverBudget !== '') parts.push(`guest over its budget (${visible(sandbox.guestOverBudget)})`);
  if (sandbox.qemuPid !== 0) parts.push(enumWord('ACCELERATOR_', sandbox.accelerator), qemuText(sandbox));
  if (sandbox.state === 'SANDBOX_STATE_RUNNING') parts.push(startText(sandbox));
  if (causeText(sandbox.cause) !== NOTHING) parts.push(causeText(sandbox.cause));
  if (sandbox.state === 'SANDBOX_STATE_RUNNING' && sandbox.timings.length > 0) parts.push(timingsText(sandbox.timings));
  return `${visible(sandbox.sandboxId)}: ${parts.join(', ')}`;
}

/** An agent behind a QEMU that hangs is not asked. */
function agentWord(sandbox: Sandbox): string {
  if (sandbox.qemuUnresponsive) return 'unresponsive';
  return sandbox.agentReady ? 'ready' : NOTHING;
}

function memoryText(sandbox: Sandbox): string {
  const mebibytes = sandbox.spec?.memoryMib ?? 0;
  return mebibytes === 0 ? NOTHING : `${mebibytes} MiB`;
}

function volumesText(sandbox: Sandbox): string {
  return `${sandbox.volumesInUse}/${sandbox.volumeCapacity}`;
}

function capacityText({ capacity }: Sandbox): string {
  if (capacity === null) return NOTHING;
  const { interruptVectorsInUse: taken, interruptVectors: all } = capacity;
  return `${visible(capacity.limit)}; ${taken} of ${all} interrupt vectors taken`;
}

function acceleratorText(sandbox: Sandbox): string {
  const inUse = enumWord('ACCELERATOR_', sandbox.accelerator);
  return sandbox.acceleratorReason === '' ? inUse : `${inUse} (${visible(sandbox.acceleratorReason)})`;
}

/** "clone of 0123456789ab", or "cold_boot (there was no template for it)". */
function startText({ start }: Sandbox): string {
  if (start === null) return NOTHING;
  const kind = enumWord('START_KIND_', start.kind);
  if (start.templateId !== '') return `${kind} of ${visible(start.templateId.slice(0, TEMPLATE_ID_SHOWN))}`;
  return start.reason === '' ? kind : `${kind} (${visible(start.reason)})`;
}

/** "full, as user 1900000007", or "degraded, as user 1900000007 (no cgroup: ...)". */
function confinementText({ confinement }: Sandbox): string {
  if (confinement === null) return NOTHING;
  const { uid, missing } = confinement;
  const level = enumWord('CONFINEMENT_LEVEL_', confinement.level);
  const lacks = missing.map(({ part, reason }) => `no ${visible(part)}: ${visible(reason)}`).join('; ');
  return `${level}${uid === 0 ? '' : `, as user ${uid}`}${lacks === '' ? '' : ` (${lacks})`}`;
}

/** What QEMU boots, and how it was asked for where that is another name of it. */
function imageText(asked: string | undefined, resolved: string | undefined): string {
  if (resolved === undefined || resolved === '' || resolved === asked) return orNothing(asked);
  return `${visible(resolved)} (as ${orNothing(asked)})`;
}

function qemuText(sandbox: Sandbox): string {
  return `QEMU ${orNothing(sandbox.qemuVersion)} as process ${sandbox.qemuPid}`;
}
