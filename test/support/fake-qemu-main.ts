/**
 * The process of a fake QEMU. It does nothing but live: it tells the test its arguments and pid over the control
 * socket, and the test serves QMP and the guest agent in its place (fake-qemu.ts). Arguments: the control socket, then
 * QEMU's own.
 */
import { createInterface } from 'node:readline';
import { connect } from 'node:net';

const [controlPath = '', ...args] = process.argv.slice(2);
// The daemon tries an allocator with it.
if (args[0] === '-version') {
  process.stdout.write('QEMU emulator version 7.2.0 (fake)\n');
  process.exit(0);
}
const control = connect(controlPath);
// Without its test nothing is left to live for.
control.on('error', () => process.exit(1));
control.on('close', () => process.exit(1));
control.write(`${JSON.stringify({ pid: process.pid, args })}\n`);
createInterface(control).on('line', (line) => {
  const { exit, said } = JSON.parse(line) as { exit: number; said: string };
  if (said !== '') process.stderr.write(said);
  process.exit(exit);
});
