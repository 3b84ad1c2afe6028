from .backbone import KnowledgeFlowBackbone
from .knowledge_flow import KnowledgeFlow, flow_of
from .schedule import FlowSchedule

__all__ = ['FlowSchedule', 'KnowledgeFlow', 'KnowledgeFlowBackbone', 'flow_of']
