# vdisk.bash - completion of vdisk's commands and options
# shellcheck shell=bash disable=SC2207 # words without blanks

_vdisk() {
    local cur prev words cword command i
    _init_completion || return

    local commands='amend attach attached bench boot cat check chmod chown commit compare convert
        cp create detach df edit export fsck info inspect kpartx label ln ls map measure mkdir
        mkfs mount mv part parts rebase rename resize rm snapshot stat tar trim try umount untar uuid vm'

    for ((i = 1; i < cword; i++)); do
        [[ ${words[i]} == -* ]] || { command=${words[i]}; break; }
    done
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W "$commands --help --version" -- "$cur"))
        return
    fi

    [[ $command:$prev == boot:-f ]] && prev=
    case $prev in
    -f | --format | -O | --output-format | -F | --backing-format | --second-format)
        COMPREPLY=($(compgen -W 'raw qcow2 vmdk' -- "$cur"))
        return
        ;;
    --cache)
        COMPREPLY=($(compgen -W 'writeback writethrough none unsafe' -- "$cur"))
        return
        ;;
    --engine)
        COMPREPLY=($(compgen -W 'kvm uml' -- "$cur"))
        return
        ;;
    --net)
        COMPREPLY=($(compgen -W 'user tap: bridge: none' -- "$cur"))
        return
        ;;
    --refs)
        COMPREPLY=($(compgen -W 'none dir any' -- "$cur"))
        return
        ;;
    --rw)
        COMPREPLY=($(compgen -W 'read write randread randwrite' -- "$cur"))
        return
        ;;
    esac

    if [[ $cur == -* ]]; then
        # what the command itself says of its options
        local sub=()
        [[ $command =~ ^(part|vm)$ && $((i + 1)) -lt $cword ]] && sub=("${words[i + 1]}")
        COMPREPLY=($(compgen -W "$(vdisk "$command" "${sub[@]}" --help 2> /dev/null |
            grep -oE -- '--[a-z][a-z-]*' | sort -u)" -- "$cur"))
        return
    fi
    if ((i + 1 == cword)); then
        case $command in
        part)
            COMPREPLY=($(compgen -W 'init add delete resize type name uuid flag convert verify
                repair backup restore' -- "$cur"))
            return
            ;;
        vm)
            COMPREPLY=($(compgen -W 'list show stats console stop reset kill attach-disk
                detach-disk resize-disk limit memory net' -- "$cur"))
            return
            ;;
        snapshot)
            COMPREPLY=($(compgen -W 'list create apply delete' -- "$cur"))
            return
            ;;
        esac
    fi
    _filedir
}
complete -F _vdisk vdisk
