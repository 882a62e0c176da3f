"""Tests of the installed wheel, the containers, the manifests and the system layout."""
