MANPAGES += docs/vdisk.1 docs/vdiskd.8 docs/vdiskd.conf.5
MANPAGES += docs/vmm-lite.8
MANPAGES += docs/vdisk-vm.5
