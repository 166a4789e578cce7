import { oneSentence } from '../base/errors.ts';

/** What `qshim doctor` found out about one thing. */
export interface Finding {
  /** What was looked at, e.g. "qemu", "kvm". */
  readonly check: string;
  readonly status: 'ok' | 'warning' | 'failure';
  /** What was seen, in one sentence. */
  readonly detail: string;
  /** What to do about it; absent when nothing needs doing. */
  readonly remedy?: string;
}

/** A finding whose detail is one line, whatever the programs that it quotes have said. */
export function inOneLine(finding: Finding): Finding {
  return { ...finding, detail: oneSentence(finding.detail) };
}

/** True when it is this user that may not, and the thing itself may be as it should. */
export function isDenied(errno: string | undefined): boolean {
  return errno === 'EACCES' || errno === 'EPERM';
}
