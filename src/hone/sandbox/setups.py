"""Code that goes before programs of a known kind. Both the program and its tests see what it defines."""

LEETCODE_SETUP = """\
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from operator import *
from random import *
from string import *
from typing import *
import bisect, collections, copy, datetime, functools, heapq, itertools, math, operator, random, re, string, sys

from builtins import abs, pow


class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next


class TreeNode:
    def __init__(self, val=0, left=None, right=None):
        self.val, self.left, self.right = val, left, right


def list_node(values):
    head = None
    for value in reversed(values or []):
        head = ListNode(value, head)
    return head


def is_same_list(one, other):
    while one and other:
        if one.val != other.val:
            return False
        one, other = one.next, other.next
    return one is None and other is None


def tree_node(values):
    if not values:
        return None
    root = TreeNode(values[0])
    level, rest = deque([root]), iter(values[1:])
    while level:
        node = level.popleft()
        for side in ("left", "right"):
            value = next(rest, None)
            if value is not None:
                setattr(node, side, TreeNode(value))
                level.append(getattr(node, side))
    return root


def is_same_tree(one, other):
    pending = [(one, other)]
    while pending:
        one, other = pending.pop()
        if one is None or other is None:
            if one is not other:
                return False
            continue
        if one.val != other.val:
            return False
        pending += [(one.left, other.left), (one.right, other.right)]
    return True
"""
"""What LeetCode gives every Python solution, and the builders and comparisons that its tests are written with."""
