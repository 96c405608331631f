# The device core (knows no KVM) and the VMM around it.
VIRTIO_SRCS := \
 vmm-lite/virtio/virtq.c \
 vmm-lite/virtio/balloon.c \
 vmm-lite/virtio/blk.c \
 vmm-lite/virtio/bounce.c \
 vmm-lite/virtio/console.c \
 vmm-lite/virtio/limiter.c \
 vmm-lite/virtio/net.c \
 vmm-lite/virtio/ports.c \
 vmm-lite/virtio/rng.c
VMM_SRCS := \
 vmm-lite/carry.c \
 vmm-lite/console.c \
 vmm-lite/control.c \
 vmm-lite/disks.c \
 vmm-lite/keeper.c \
 vmm-lite/log.c \
 vmm-lite/options.c \
 vmm-lite/passed.c \
 vmm-lite/requests.c \
 vmm-lite/sandbox.c vmm-lite/userns.c \
 vmm-lite/terminal.c \
 vmm-lite/tty.c \
 vmm-lite/words.c \
 vmm-lite/kvm/acpi.c \
 vmm-lite/kvm/bzimage.c \
 vmm-lite/kvm/cpu.c \
 vmm-lite/kvm/elf.c \
 vmm-lite/kvm/events.c \
 vmm-lite/kvm/irq.c \
 vmm-lite/kvm/load.c \
 vmm-lite/kvm/machine.c \
 vmm-lite/kvm/memory.c \
 vmm-lite/kvm/pci.c \
 vmm-lite/kvm/serial.c \
 vmm-lite/kvm/unpack.c \
 vmm-lite/kvm/virtio_pci.c \
 vmm-lite/vhost/command.c \
 vmm-lite/vhost/front.c \
 vmm-lite/vhost/lines.c \
 vmm-lite/vhost/msg.c \
 vmm-lite/vhost/talk.c
PROGS += vmm-lite
vmm-lite_SRCS := vmm-lite/main.c $(VMM_SRCS) $(VIRTIO_SRCS)
vmm-lite_PKGS := libseccomp jansson
# a small process: only the libraries that it calls
vmm-lite_LDFLAGS := -Wl,--as-needed
tests/unit/virtio_ports_SRCS := vmm-lite/virtio/virtq.c vmm-lite/virtio/ports.c
tests/unit/limiter_SRCS := vmm-lite/virtio/limiter.c
tests/unit/virtio_blk_SRCS := $(VIRTIO_SRCS) vmm-lite/tty.c
tests/unit/virtio_bounce_SRCS := $(VIRTIO_SRCS) vmm-lite/tty.c
tests/unit/virtio_console_SRCS := vmm-lite/tty.c vmm-lite/virtio/console.c vmm-lite/virtio/virtq.c
tests/unit/vmm_machine_SRCS := vmm-lite/log.c vmm-lite/terminal.c vmm-lite/kvm/acpi.c \
 vmm-lite/kvm/bzimage.c vmm-lite/kvm/elf.c vmm-lite/kvm/load.c vmm-lite/kvm/unpack.c \
 vmm-lite/kvm/memory.c vmm-lite/kvm/pci.c vmm-lite/kvm/serial.c vmm-lite/tty.c
tests/fuzz/virtio_SRCS := $(VIRTIO_SRCS) vmm-lite/tty.c
tests/fuzz/bzimage_SRCS := vmm-lite/log.c vmm-lite/kvm/acpi.c vmm-lite/kvm/bzimage.c \
 vmm-lite/kvm/elf.c vmm-lite/kvm/load.c vmm-lite/kvm/unpack.c vmm-lite/kvm/memory.c

# One disk for one vhost-user front end.
VHOST_SRCS := \
 vmm-lite/log.c \
 vmm-lite/words.c \
 vmm-lite/vhost/msg.c \
 vmm-lite/vhost/session.c \
 vmm-lite/vhost/talk.c
PROGS += vdisk-vhost
vdisk-vhost_SRCS := vmm-lite/vhost/main.c vmm-lite/vhost/failing.c vmm-lite/vhost/sandbox.c vmm-lite/vhost/server.c \
 vmm-lite/virtio/virtq.c vmm-lite/virtio/blk.c vmm-lite/virtio/limiter.c $(VHOST_SRCS)
vdisk-vhost_PKGS := libseccomp
tests/unit/vhost_user_SRCS := vmm-lite/virtio/virtq.c vmm-lite/virtio/blk.c vmm-lite/virtio/limiter.c $(VHOST_SRCS)
tests/fuzz/vhost_front_SRCS := vmm-lite/vhost/front.c vmm-lite/vhost/msg.c vmm-lite/vhost/talk.c vmm-lite/vhost/command.c vmm-lite/words.c vmm-lite/vhost/lines.c vmm-lite/keeper.c vmm-lite/log.c \
 vmm-lite/virtio/limiter.c
tests/fuzz/relay_SRCS := vmm-lite/vhost/relay.c vmm-lite/vhost/msg.c vmm-lite/vhost/talk.c vmm-lite/vhost/command.c vmm-lite/keeper.c \
 vmm-lite/words.c vmm-lite/log.c
tests/fuzz/vhost_SRCS := vmm-lite/virtio/virtq.c vmm-lite/virtio/blk.c vmm-lite/virtio/limiter.c $(VHOST_SRCS)

# The same guests on User-Mode Linux.
PROGS += vmm-uml
vmm-uml_SRCS := vmm-lite/uml/main.c vmm-lite/uml/dir.c vmm-lite/uml/disks.c vmm-lite/uml/kernel.c \
 vmm-lite/uml/confine.c vmm-lite/uml/line.c vmm-lite/uml/nics.c vmm-lite/uml/requests.c vmm-lite/sandbox.c \
 vmm-lite/console.c vmm-lite/control.c vmm-lite/keeper.c vmm-lite/log.c vmm-lite/options.c vmm-lite/passed.c \
 vmm-lite/terminal.c vmm-lite/tty.c vmm-lite/userns.c vmm-lite/words.c \
 vmm-lite/vhost/command.c vmm-lite/vhost/lines.c vmm-lite/vhost/msg.c vmm-lite/vhost/relay.c \
 vmm-lite/vhost/sandbox.c vmm-lite/vhost/server.c vmm-lite/vhost/session.c vmm-lite/vhost/talk.c \
 vmm-lite/virtio/blk.c vmm-lite/virtio/limiter.c vmm-lite/virtio/net.c vmm-lite/virtio/virtq.c
vmm-uml_PKGS := libseccomp jansson
vmm-uml_LDFLAGS := -Wl,--as-needed

# User-Mode Linux: what is preloaded into it, and the guest's first process.
ALONE += vdisk-uml.so vdisk-uml-init
vdisk-uml.so_SRCS := vmm-lite/uml/shim.c
vdisk-uml.so_ALONE := -shared -fPIC
vdisk-uml-init_SRCS := vmm-lite/uml/init.c
vdisk-uml-init_ALONE := -static -s
tests/unit/uml_confine_SRCS := vmm-lite/log.c vmm-lite/uml/confine.c vmm-lite/userns.c \
 vmm-lite/vhost/sandbox.c
tests/unit/vhost_sandbox_SRCS := vmm-lite/log.c vmm-lite/vhost/sandbox.c
tests/unit/sandbox_SRCS := vmm-lite/log.c vmm-lite/sandbox.c vmm-lite/terminal.c \
 vmm-lite/userns.c
tests/unit/virtio_net_SRCS := vmm-lite/virtio/net.c vmm-lite/virtio/virtq.c
tests/fuzz/control_SRCS := vmm-lite/control.c vmm-lite/log.c
tests/fuzz/control_LIBS := -ljansson
tests/fuzz/pci_SRCS := vmm-lite/log.c vmm-lite/kvm/pci.c vmm-lite/kvm/virtio_pci.c \
 vmm-lite/tty.c vmm-lite/virtio/balloon.c vmm-lite/virtio/console.c vmm-lite/virtio/rng.c \
 vmm-lite/virtio/virtq.c
