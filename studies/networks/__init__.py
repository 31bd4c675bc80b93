"""Networks of other people that have published weights, written anew from their papers, one file each.

Names of their parts are those of the published weights, so that these load strictly. Every file has functions
for the command line: the network alone, and the network with what its images need.
"""
