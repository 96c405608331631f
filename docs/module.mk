MANPAGES += docs/vdisk.1 docs/vdiskd.8
MANPAGES += docs/vmm-lite.8
