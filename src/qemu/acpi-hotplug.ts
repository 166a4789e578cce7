import { ShimError } from '../base/errors.ts';
import type { QmpClient } from '../qmp/client.ts';

/**
 * Asked, not assumed: with native PCIe hotplug every detach would take 6 s.
 * @throws ShimError FAILED_PRECONDITION / ACPI_HOTPLUG_OFF
 */
export async function assertAcpiHotplug(client: Pick<QmpClient, 'run'>): Promise<void> {
  const devices = await client.run('qom-list', { path: '/machine/unattached' });
  const lpc = devices.find((device) => device.type === 'child<ICH9-LPC>');
  const acpi =
    lpc === undefined
      ? undefined
      : await client.run('qom-get', {
          path: `/machine/unattached/${lpc.name}`,
          property: 'acpi-pci-hotplug-with-bridge-support',
        });
  if (acpi !== true) {
    throw new ShimError('FAILED_PRECONDITION', 'this QEMU does not hot-plug PCI devices through ACPI on q35', {
      reason: 'ACPI_HOTPLUG_OFF',
      metadata: { seen: String(acpi) },
    });
  }
}
