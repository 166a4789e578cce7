"""One libvirt session, driven by JSON lines: {"call": NAME, "args": [...]} in, {"ok": value} or {"error": text} out."""

import json
import sys

import libvirt
import libvirt_qemu

LIVE = libvirt.VIR_DOMAIN_AFFECT_LIVE


def handlers(connection):
    domain = connection.lookupByName

    def define_and_start(xml, paused):
        flags = libvirt.VIR_DOMAIN_START_PAUSED if paused else 0
        connection.createXML(xml, flags)

    def agent(name, command, seconds):
        return json.loads(libvirt_qemu.qemuAgentCommand(domain(name), json.dumps(command), seconds, 0))

    return {
        "version": connection.getLibVersion,
        "start": define_and_start,
        "destroy": lambda name: domain(name).destroy(),
        "attach": lambda name, xml: domain(name).attachDeviceFlags(xml, LIVE),
        "detach": lambda name, xml: domain(name).detachDeviceFlags(xml, LIVE),
        "targets": lambda name: domain(name).XMLDesc(0).count("<disk "),
        "agent": agent,
    }


def main():
    libvirt.registerErrorHandler(lambda *_: None, None)
    calls = handlers(libvirt.open(sys.argv[1]))
    print(json.dumps({"ok": "ready"}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"ok": calls[request["call"]](*request["args"])}
        except Exception as error:  # told to the caller, who decides
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)


main()
