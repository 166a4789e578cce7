import { isSince } from '../../src/qmp/contract-check.ts';
import { QMP_CONTRACT } from '../../src/qmp/contract.ts';
import type { QemuVersion } from '../../src/qmp/protocol.ts';

/**
 * Like `checkContract`, for the device_add arguments that only `device-list-properties` describes.
 * @param listed the property names that the binary lists for the driver
 * @param kind `device`: virtio-blk-pci; `port`: virtserialport
 */
export function checkDeviceProperties(
  listed: ReadonlySet<string>,
  version: QemuVersion,
  kind: 'device' | 'port' = 'device',
): string[] {
  return Object.entries(QMP_CONTRACT.commands.device_add.arguments)
    .filter(([, leaf]) => String(leaf).startsWith(`${kind} property`) && isSince(leaf, version))
    .map(([name]) => name)
    .filter((name) => !listed.has(name))
    .map((name) => `device_add: property ${name} is not in device-list-properties`);
}
