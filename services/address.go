package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"

	"github.com/marketplane/marketplane/api/contract"
	"github.com/marketplane/marketplane/services/internal/env"
)

// readAddress reads where other processes reach the internal port of this one;
// the zero AddrPort where nobody has said so.
func readAddress(source *env.Source, internalListen string) netip.AddrPort {
	text := source.String(contract.EnvAddress, "")
	if text == "" {
		return netip.AddrPort{}
	}
	address, err := netip.ParseAddr(text)
	if err == nil && (address.IsUnspecified() || address.Zone() != "") {
		err = errors.New("is no address that others reach")
	}
	if err != nil {
		source.Fail(contract.EnvAddress, err)
		return netip.AddrPort{}
	}
	_, text, err = net.SplitHostPort(internalListen)
	if err != nil {
		return netip.AddrPort{} // which the source has said of the other variable
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		source.Fail(contract.EnvInternalListen, errors.New("must name the port that others reach, as a number"))
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(address, uint16(port))
}
