"""Tests of the wheel as installed, without the checkout."""
